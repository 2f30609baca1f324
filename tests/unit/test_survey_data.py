"""Survey records, their scales and their splits: read in full, or refused by file, line and remedy."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.metrics.survey_answers import Scale
from evaluation.suites import Settings
from evaluation.suites.survey import SUITE
from evaluation.suites.survey_items import SurveyItems
from nemo_ext.common.errors import ConfigError, DataError, SibolError
from tests.support.survey_data import record, records, write_records

STUDIES = ("aaaaa", "bbbbb", "ccccc", "ddddd")


def read(path: Path, split: str | None = None, **options: str) -> SurveyItems:
    return SUITE.read(path, Settings(split=split, options=options))


def refusal(path: Path, split: str | None = None, **options: str) -> str:
    with pytest.raises(SibolError) as caught:
        read(path, split, **options)
    return str(caught.value)


def test_jsonl_gzip_and_parquet_in_any_order_are_the_same_items(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = records(STUDIES[:2])
    plain = read(write_records(tmp_path / "a.jsonl", rows))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in reversed(rows)).encode()))
    (tmp_path / "c").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c" / "train-00000-of-00001.parquet")
    packed, table = read(tmp_path / "b.jsonl.gz"), read(tmp_path / "c")
    assert plain.sha256 == packed.sha256 == table.sha256
    assert (plain.documents, len(plain.cells)) == (len(rows), 8)
    assert [[one.id for one in cell] for cell in plain.responses] == [[one.id for one in cell] for cell in table.responses]
    assert "Nothing says which studies the model was trained on" in plain.warnings[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"response": "3"}, "the response '3'. Expected a whole number"),
        ({"response": 2.5}, "the response 2.5. Expected a whole number"),
        ({"response": None}, "the response None"),
        ({"study_id": ""}, "the study_id ''. Expected the name of a study"),
        ({"condition_num": None}, "the condition_num None"),
        ({"prompt": " "}, "the prompt ' '. Expected the text of a question; name its field with --set prompt_field="),
        ({"sample_id": 0}, "the sample_id '0' of"),
        ({"scale_min": 1}, "scale_min 1 and scale_max None. Expected two whole numbers, or neither"),
        ({"stimuli": "How fair is it?"}, "has no stated scale, so its answers cannot be judged. Mend the data"),
        ({"response": 8}, "(response 8, scale 1 to 5) has a response off the stated scale"),
        (
            {"stimuli": "Only return an integer from 1 to 7."},
            "(cell aaaaa, 0, 0: 1 to 5 and 1 to 7) has a cell whose",
        ),
    ],
)
def test_a_record_that_cannot_be_judged_is_named_by_file_and_line(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    rows = [record("aaaaa", 0, 0, 3, number) for number in range(3)]
    path = write_records(tmp_path / "data.jsonl", [rows[0], rows[1] | change, rows[2]])
    message = refusal(path)
    assert complaint in message
    assert f"{path}:2" in message or "has a cell" in complaint  # a cell is named by its first line


def test_broken_lines_are_named(tmp_path: Path) -> None:
    path = write_records(tmp_path / "data.jsonl", records(STUDIES[:1]))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"study_id": "aaaaa"\n')
    assert f"{path}:25 is not valid JSON" in refusal(path)
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(whole)[:-9])
    assert "data.jsonl.gz is damaged" in refusal(tmp_path / "data.jsonl.gz")
    path.write_text("[1]\n")
    assert f"{path}:1 holds list" in refusal(path)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    assert "is no Parquet table" in refusal(tmp_path / "data.parquet")
    assert "Expected a file or folder of files ending in .jsonl" in refusal(tmp_path / "data.csv")


def test_what_has_no_usable_scale_may_be_left_out_and_is_counted(tmp_path: Path) -> None:
    rows = records(STUDIES[:2]) + [
        record("bbbbb", 5, 0, 3, 1000) | {"stimuli": "Only return an integer representing dollars."},
        record("bbbbb", 0, 0, 8, 1001),
        record("ccccc", 0, 0, 3, 1002),
        record("ccccc", 0, 0, 3, 1003, (1, 7)),
    ]
    items = read(write_records(tmp_path / "data.jsonl", rows), unusable="leave_out")
    assert items.documents == 48
    assert dict(items.left_out) == {
        "no stated scale": 1,
        "a response off the stated scale": 1,
        "a cell whose questions state several scales": 2,
    }
    assert dict(items.studies_left_out) == {"bbbbb": 2, "ccccc": 2}
    assert items.as_dict()["left_out"] == dict(sorted(items.left_out.items()))


def test_a_scale_may_change_with_the_condition_and_may_be_given_in_fields(tmp_path: Path) -> None:
    rows = [
        record("aaaaa", 0, 0, 3, 0),
        record("aaaaa", 1, 0, 7, 1, (1, 7)),
        record("aaaaa", 2, 0, 9, 2) | {"scale_min": 0, "scale_max": 10},
    ]
    assert [cell.scale for cell in read(write_records(tmp_path / "data.jsonl", rows)).cells] == [Scale(1, 5), Scale(1, 7), Scale(0, 10)]


def test_fewer_responses_of_a_cell_are_the_same_ones_in_any_order(tmp_path: Path) -> None:
    rows = records(STUDIES[:1], people=30)
    few = read(write_records(tmp_path / "a.jsonl", rows), most_per_cell="4")
    same = read(write_records(tmp_path / "b.jsonl", rows[::-1]), most_per_cell="4")
    other = read(tmp_path / "a.jsonl", most_per_cell="4", sampling_seed="7")
    assert few.sha256 == same.sha256 == other.sha256
    assert (few.documents, few.left_out["beyond most_per_cell"]) == (16, 104)


def mapping(path: Path, **splits: Any) -> str:
    path.write_text(json.dumps(splits))
    return str(path)


def test_the_official_split_and_a_reshuffled_one_are_named_so(tmp_path: Path) -> None:
    studies = [f"s{number:04}" for number in range(210)]
    data = write_records(tmp_path / "data.jsonl", records(studies[168:172]))
    official = read(data, mapping=mapping(tmp_path / "participant_mapping.json", seen=studies[:170], unseen=studies[170:]))
    assert {cell.study for cell in official.cells} == {"s0170", "s0171"}
    assert official.as_dict()["split"]["kind"] == "official" and official.split.name == "unseen"
    assert official.left_out["of another split"] == 48
    assert "Of the split unseen, 38 studies (s0172, " in official.warnings[0]
    other = read(data, mapping=mapping(tmp_path / "other.json", train=studies[:169], validation=[], test=studies[169:]))
    assert (other.split.kind, other.split.name) == ("reshuffled", "test")
    assert read(data, split="seen", mapping=str(tmp_path / "participant_mapping.json")).split.name == "seen"


def test_a_study_in_two_splits_is_refused_by_name(tmp_path: Path) -> None:
    data = write_records(tmp_path / "data.jsonl", records(STUDIES))
    message = refusal(data, mapping=mapping(tmp_path / "m.json", seen=["aaaaa", "bbbbb"], unseen=["bbbbb", "ccccc"]))
    assert "m.json has 1 study (bbbbb) in more than one of its splits (seen, unseen)" in message
    within = mapping(tmp_path / "task_mapping.json", aaaaa={"train": [0], "eval": [1]})
    assert "holds splits within studies (by task or condition)" in refusal(data, mapping=within)
    assert "has no split 'test'. It has: a, b" in refusal(data, mapping=mapping(tmp_path / "n.json", a=["aaaaa"], b=["bbbbb"]))
    assert "--split test was given, but" in refusal(data, split="test")


def test_a_split_of_ours_is_read_and_proven_again(tmp_path: Path) -> None:
    from data_tools.group_split import SplitOptions, split_by_group

    studies = [f"s{number}" for number in range(12)]
    data = write_records(tmp_path / "data.jsonl", records(studies, people=2))
    split_by_group(SplitOptions((str(data),), tmp_path / "split", "study_id", shares="60,20,20", seed=4))
    items = read(tmp_path / "split", train=str(tmp_path / "split"))
    assert (items.split.kind, items.split.name, items.split.facts["seed"]) == ("reshuffled", "test", 4)
    assert items.training is not None and not items.training.studies & {cell.study for cell in items.cells}
    assert items.training.studies | {cell.study for cell in items.cells} < set(studies)
    assert "has no split 'unseen'. It has: train, validation, test" in refusal(tmp_path / "split", split="unseen")
    assert "would split it again" in refusal(tmp_path / "split", mapping=str(data))
    stolen = (tmp_path / "split" / "test.jsonl").read_text().splitlines()[0]
    with (tmp_path / "split" / "train.jsonl").open("a") as handle:
        handle.write(stolen + "\n")
    assert f"has 1 study ({json.loads(stolen)['study_id']}) in more than one of its splits" in refusal(tmp_path / "split")
    split_by_group(SplitOptions((str(data),), tmp_path / "people", "participant", shares="60,20,20"))
    assert "grouped by 'participant'" in refusal(tmp_path / "people")


def test_studies_that_the_model_has_seen_are_refused_by_name(tmp_path: Path) -> None:
    data = write_records(tmp_path / "test.jsonl", records(STUDIES))
    train = write_records(tmp_path / "train.jsonl", records(("zzzzz", "ccccc", "bbbbb")))
    assert "hold 2 studies (bbbbb, ccccc) of those that are to be judged" in refusal(data, train=str(train))
    items = read(data, train=str(write_records(tmp_path / "other.jsonl", records(("zzzzz",)))))
    assert items.training is not None and items.training.studies == {"zzzzz"}
    assert sum(items.training.answers[Scale(1, 5)].values()) == 24


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"system": "Be brief."}, "--set system= is for chats"),
        ({"most_per_cell": "0"}, "--set most_per_cell=0: expected at least 1"),
        ({"answer": "likelihood", "answer_end": ""}, "--set answer_end= is empty"),
        ({"answer_end": "."}, "--set answer_end= would change nothing with answer=generate"),
        ({"answer": "likelihood", "temperature": "1"}, "--set temperature= would change nothing with answer=likelihood"),
        ({"chat": "true", "answer_start": " "}, "--set answer_start= would change nothing with answer=generate in a chat"),
        ({"answer": "guess"}, "expected generate or likelihood"),
        ({"temperatur": "0"}, "the suite survey has no such option"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_read(options: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SUITE.check(Settings(options=options), [])
    assert complaint in str(caught.value)


def test_the_field_of_texts_is_not_asked_for_in_vain() -> None:
    with pytest.raises(ConfigError, match="--text-field: the suite survey does not read it"):
        SUITE.check(Settings(text_field="stimuli"), [])


def test_data_with_nothing_to_judge_are_refused(tmp_path: Path) -> None:
    data = write_records(tmp_path / "data.jsonl", records(STUDIES))
    with pytest.raises(DataError, match=r"holds nothing to judge \(96 of another split\)"):
        read(data, mapping=mapping(tmp_path / "m.json", unseen=["zzzzz"]))
