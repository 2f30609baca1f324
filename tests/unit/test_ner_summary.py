"""Figures of the suite `ner` on a few documents worked out by hand, and what they promise about intervals and comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.compare_statistics import compare_pairs
from evaluation.metrics.entities import Entity
from evaluation.statistics import Bootstrap
from evaluation.suites import Settings, Summary
from evaluation.suites.ner_data import NerItems, NerOptions, read_items
from evaluation.suites.ner_predict import Found, Predictions, chunks, from_labels, match_types, scheme_of_model
from evaluation.suites.ner_summary import summarise
from nemo_ext.common.errors import ConfigError

SETTINGS = Settings(resamples=200)
PER, LOC = "PER", "LOC"
#        document a              b (1850)         c        d
GOLD = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"], ["O", "O"], ["B-PER", "O"]]
LED = [["LED0.20", "LED0.20", "_", "LED0.00"], ["_", "_"], ["_", "_"], ["LED0.00", "_"]]
DATES = ["1820-01-01", "1850-12-31", "1849", None]
FOUND = [
    Found((Entity(0, 1, PER), Entity(3, 4, LOC))),  # one boundary wrong, one right
    Found((), ("PER", "LOC")),  # nothing but two marks on names that are not there
    Found((Entity(0, 1, LOC),)),  # a wrong one where there is nothing to find
    Found(()),  # silent
]
# strict: TP 1 of 5 predicted and 4 right; fuzzy: TP 2
STRICT = 2 * 1 / (5 + 4)
FUZZY = 2 * 2 / (5 + 4)


def write_data(folder: Path) -> Path:
    lines = ["TOKEN\tNE-COARSE-LIT\tMISC"]
    for name, labels, notes, date in zip("abcd", GOLD, LED, DATES, strict=True):
        lines += [f"# document_id = {name}"] + ([f"# date = {date}"] if date else [])
        lines += [f"w{number}\t{label}\t{note}" for number, (label, note) in enumerate(zip(labels, notes, strict=True))] + [""]
    (folder / "data.tsv").write_text("\n".join(lines))
    return folder / "data.tsv"


@pytest.fixture
def items(tmp_path: Path) -> NerItems:
    return read_items(write_data(tmp_path), NerOptions())


def summary_of(items: NerItems, *found: list[Found], **options: Any) -> Summary:
    return summarise([Predictions(items, one, []) for one in found], NerOptions(**options), SETTINGS)


def test_micro_and_document_figures_follow_their_definitions(items: NerItems) -> None:
    summary = summary_of(items, FOUND)
    values = {name: interval.value for name, interval in summary.metrics.items()}
    assert values == pytest.approx(
        {
            "strict_f1": STRICT,
            "strict_precision": 1 / 5,
            "strict_recall": 1 / 4,
            "strict_f1_document_macro": (2 * 1 / 4 + 0) / 2,  # a and b; c has no mention, in d nothing is predicted
            "fuzzy_f1": FUZZY,
            "fuzzy_precision": 2 / 5,
            "fuzzy_recall": 2 / 4,
            "fuzzy_f1_document_macro": (2 * 2 / 4 + 0) / 2,
        }
    )
    assert all(one.low is not None and one.low <= one.value <= one.high for one in summary.metrics.values())  # type: ignore[operator]
    assert any("nothing is predicted in 1 documents" in text for text in summary.warnings)


def test_parts_by_type_noise_and_period_are_counted(items: NerItems) -> None:
    domains = summary_of(items, FOUND).domains
    found = {
        name: (entry["mentions"], entry["predicted"], *entry["strict_counts"].values(), entry["fuzzy_counts"]["true_positives"])
        for name, entry in domains.items()
    }
    assert found == {
        "all": (4, 5, 1, 4, 3, 2),
        "type LOC": (2, 3, 1, 2, 1, 1),
        "type PER": (2, 2, 0, 2, 2, 1),
        # Mentions without LED (b's) and predictions outside of mentions are in every part; a's two are in one each.
        "noise 0": (3, 4, 1, 3, 2, 1),
        "noise 0.001-0.1": (1, 3, 0, 3, 1, 0),
        "noise 0.1-0.3": (2, 4, 0, 4, 2, 1),
        "noise 0.3-1.1": (1, 3, 0, 3, 1, 0),
        "period (no date)": (1, 0, 0, 0, 1, 0),
        "period 1800-1849": (2, 3, 1, 2, 1, 2),
        "period 1850-1899": (1, 2, 0, 2, 1, 0),
    }
    assert domains["all"]["strict_f1"]["value"] == pytest.approx(STRICT)
    assert domains["period (no date)"]["strict_f1"] == {"value": 0.0, "low": None, "high": None}
    assert any("1 mentions have no LED" in text for text in summary_of(items, FOUND).warnings)


def test_the_mean_of_the_documents_scores_is_the_micro_f1_and_their_spread_that_of_its_bootstrap() -> None:
    generator = np.random.default_rng(0)
    right, predicted = generator.poisson(6, 150), generator.poisson(5, 150)
    hits = generator.binomial(np.minimum(right, predicted), 0.6)
    from evaluation.suites.ner_summary import _linearised

    table = np.zeros((150, 7))
    table[:, 0], table[:, 2], table[:, 3] = hits, predicted, right
    scores = _linearised(table)
    value = 2 * hits.sum() / (right.sum() + predicted.sum())
    assert scores.mean() == pytest.approx(value)
    ratio = Bootstrap(np.stack([2.0 * hits, predicted + right], axis=1), 4000, 0.95, 1).interval(lambda sums: sums[..., 0] / sums[..., 1])
    linear = compare_pairs(np.zeros((1, 150)), scores[None], np.ones(150), 4000, 0.95, 1)
    assert (linear.low, linear.high) == pytest.approx((ratio.low, ratio.high), abs=0.004)


def test_rows_and_differences_pair_two_models(items: NerItems) -> None:
    perfect = [Found(gold) for gold in items.gold]
    summary = summary_of(items, perfect, FOUND)
    assert summary.comparison is not None and summary.baseline_metrics is not None
    assert summary.metrics["strict_f1"].value == 1.0
    assert summary.comparison["strict_f1"].value == pytest.approx(1 - STRICT)
    assert summary.baseline_metrics["fuzzy_f1"].value == pytest.approx(FUZZY)
    assert [row["id"] for row in summary.rows] == list("abcd")
    assert np.mean([row["score"] for row in summary.rows]) == pytest.approx(1.0)
    assert np.mean([row["baseline_score"] for row in summary.rows]) == pytest.approx(STRICT)
    assert [row.get("period") for row in summary.rows] == ["1800-1849", "1850-1899", "1800-1849", None]
    assert (summary.rows[0]["mentions"], summary.rows[0]["predicted"], summary.rows[0]["baseline_strict_true_positives"]) == (2, 2, 1)


def test_trivial_models_stand_beside_the_figures(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    train = tmp_path / "train.tsv"
    train.write_text("w0 B-LOC\n\nw0 B-LOC\n\nw3 B-PER\n")
    items = read_items(data, NerOptions(train=str(train)))
    references = summary_of(items, FOUND).references
    assert {interval.value for interval in references["majority"].values()} == {0.0}
    # w0 is called LOC everywhere: right in b; w3 is called PER: wrong in a.
    assert references["known_names"]["strict_precision"].value == pytest.approx(1 / 5)
    assert references["known_names"]["strict_recall"].value == pytest.approx(1 / 4)


def test_published_figures_stand_beside_their_own_test_set_alone(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    dated = data.read_text().replace("# document_id", "# hipe2022:dataset = topres19th\n# hipe2022:language = en\n# document_id")
    for split in ("test", "dev", "train"):
        (tmp_path / f"HIPE-2022-v2.1-topres19th-{split}-en.tsv").write_text(dated)
    names = list(summary_of(read_items(tmp_path / "HIPE-2022-v2.1-topres19th-test-en.tsv", NerOptions()), FOUND).references)
    assert names[1:] == [f"HIPE-2022 {name} on topres19th-en test, published" for name in ("best", "baseline")]
    for split in ("dev", "train"):
        items = read_items(tmp_path / f"HIPE-2022-v2.1-topres19th-{split}-en.tsv", NerOptions())
        assert list(summary_of(items, FOUND).references) == ["majority"]


def test_types_are_matched_by_pairs_then_in_any_case_and_otherwise_refused() -> None:
    known = {"pers": 3, "loc": 2}
    assert match_types(["PER", "LOC", "MISC"], known, ("PER:pers",)) == {"PER": "pers", "LOC": "loc", "MISC": "MISC"}
    with pytest.raises(ConfigError, match=r"No predicted type \(PER, ORG\) is a type of the data \(pers, loc\)"):
        match_types(["PER", "ORG"], known, ())
    with pytest.raises(ConfigError, match=r"--set labels=PERS:pers: the model has no type 'PERS'\. Did you mean 'PER'"):
        match_types(["PER"], known, ("PERS:pers",))
    for pair in ("PER", "PER:person"):
        with pytest.raises(ConfigError, match=f"--set labels={pair}: expected MODEL:DATA"):
            match_types(["PER"], known, (pair,))


def test_the_labels_of_a_model_say_their_scheme_or_are_refused() -> None:
    assert scheme_of_model(["O", "B-PER", "I-PER"]) == "iob2"
    assert scheme_of_model(["O", "I-PER"]) == "iob1"
    assert scheme_of_model(["O", "B-PER", "I-PER", "L-PER", "U-PER"]) == "bioes"
    with pytest.raises(ConfigError, match=r"'LABEL_0', which is no label.*id2label"):
        scheme_of_model(["LABEL_0", "LABEL_1"])
    with pytest.raises(ConfigError, match=r"none for words outside"):
        scheme_of_model(["B-PER", "I-PER"])


def test_labels_that_mean_nothing_are_counted_and_types_renamed(items: NerItems) -> None:
    labels = [["O", "I-person", "O", "B-LOC"], ["B-person", "O"], ["O", "O"], ["O", "O"]]
    predictions = from_labels(items, labels, "iob2", {"person": PER, LOC: LOC})
    assert [one.entities for one in predictions.found] == [(Entity(3, 4, LOC),), (Entity(0, 1, PER),), (), ()]
    assert predictions.warnings == ["1 predicted labels mean nothing in iob2 (such as an I- that continues nothing) and are no entities."]


def test_chunks_are_whole_sentences_where_they_fit(tmp_path: Path) -> None:
    ends = {3, 5, 12, 13}
    lines = [f"w{number}\tB-X\t{'EndOfSentence' if number + 1 in ends else '_'}" for number in range(14)]
    (tmp_path / "d.tsv").write_text("\n".join(["TOKEN\tNE-COARSE-LIT\tMISC", *lines]))
    (document,) = read_items(tmp_path / "d.tsv", NerOptions()).tagged
    assert list(chunks(document, 5)) == [(0, 5), (5, 10), (10, 14)]
    assert list(chunks(document, 100)) == [(0, 14)]
    assert list(chunks(document, 4)) == [(0, 3), (3, 5), (5, 9), (9, 13), (13, 14)]
    for most in range(1, 16):
        pieces = list(chunks(document, most))
        assert [word for start, end in pieces for word in range(start, end)] == list(range(14))
        assert max(end - start for start, end in pieces) <= most
