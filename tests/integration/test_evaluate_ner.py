"""`sibol evaluate --suite ner` on real folders and files: a model that labels, one that writes, and predictions without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from evaluation.compare import compare
from evaluation.report import write_report
from nemo_ext.common.errors import ConfigError, DataError
from recipes.cli.main import app
from tests.support.tiny_language_models import save_tiny_qwen2
from tests.support.tiny_taggers import save_tiny_tagger

NAMES = {"Anna": "PER", "Maria": "PER", "Rome": "LOC", "Oslo": "LOC"}
SENTENCES = ["Anna met Maria in Rome .", "In Oslo it rained on Anna .", "Nobody came to Rome .", "It was late ."]


def tsv(labels: dict[str, str], documents: int = 24) -> str:
    """Documents of two sentences each, the words of `labels` marked."""
    lines = ["TOKEN\tNE-COARSE-LIT\tMISC"]
    for number in range(documents):
        lines += [f"# document_id = d{number}", f"# date = {1800 + 5 * number}-01-01"]
        for sentence in (SENTENCES[number % 4], SENTENCES[number // 4 % 4]):
            words = sentence.split()
            lines += [f"{word}\t{'B-' + labels[word] if word in labels else 'O'}\t_" for word in words[:-1]] + [".\tO\tEndOfSentence"]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, files of predictions, and the models `tagger` and `writer`."""
    folder = tmp_path_factory.mktemp("ner")
    (folder / "gold.tsv").write_text(tsv(NAMES))
    (folder / "perfect.tsv").write_text(tsv({name: kind.lower() for name, kind in NAMES.items()}))
    (folder / "some.tsv").write_text(tsv({"Anna": "PER", "Rome": "PER"}))
    save_tiny_tagger(folder / "tagger")
    save_tiny_qwen2(folder / "writer", context=256)
    return folder


def sibol(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--suite", "ner", "--resamples", "100"])


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    results = json.loads((folder / "results.json").read_text())
    return results, [json.loads(line) for line in (folder / "per_document.jsonl").read_text().splitlines()]


def test_a_tagger_and_predictions_of_a_file_are_measured_compared_and_reported(folder: Path, tmp_path: Path) -> None:
    command = ("--data", folder / "gold.tsv", "--set", f"train={folder / 'gold.tsv'}")
    outcome = sibol(folder / "perfect.tsv", *command, "--out", tmp_path / "perfect", "--baseline", folder / "tagger")
    assert outcome.exit_code == 0, outcome.exception
    assert "majority" in outcome.output and "known_names" in outcome.output and "type PER" in outcome.output
    assert "Other metrics" in outcome.output and "fuzzy recall" in outcome.output
    results, rows = read(tmp_path / "perfect")
    assert {name: one["value"] for name, one in results["metrics"].items()} == dict.fromkeys(results["metrics"], 1.0)
    assert results["references"]["known_names"]["strict_f1"]["value"] == 1.0
    assert results["references"]["majority"]["strict_f1"]["value"] == 0.0
    assert results["model"]["architecture"] == "predictions of a file"
    tagger = results["baseline"]
    assert tagger["model"]["labels"] == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    assert np.mean([row["baseline_score"] for row in rows]) == pytest.approx(tagger["metrics"]["strict_f1"]["value"])
    assert tagger["difference"]["strict_f1"]["value"] == pytest.approx(1 - tagger["metrics"]["strict_f1"]["value"])
    assert [row["id"] for row in rows] == [f"d{number}" for number in range(24)]
    assert {"period 1800-1849", "period 1850-1899", "period 1900-1949"} < set(results["domains"])

    assert sibol(folder / "some.tsv", *command, "--out", tmp_path / "some").exit_code == 0
    (suite,) = compare([tmp_path / "some", tmp_path / "perfect"])["suites"]
    figures = {arm["label"]: arm["value"] for arm in suite["arms"]}
    assert suite["metric"] == "strict_f1"
    assert figures["perfect.tsv"] == pytest.approx(1.0)
    assert figures["tagger"] == pytest.approx(tagger["metrics"]["strict_f1"]["value"])
    assert figures["some.tsv"] == pytest.approx(read(tmp_path / "some")[0]["metrics"]["strict_f1"]["value"])
    # What is written beside the results is a file of predictions itself.
    assert sibol(tmp_path / "some" / "predictions.tsv", *command, "--out", tmp_path / "again").exit_code == 0
    assert read(tmp_path / "again")[0]["metrics"] == read(tmp_path / "some")[0]["metrics"]
    assert sibol(folder / "tagger", *command, "--out", tmp_path / "some", "--overwrite").exit_code == 0
    assert read(tmp_path / "some")[0]["metrics"] == tagger["metrics"]
    write_report([tmp_path / "perfect", tmp_path / "again"], tmp_path / "report")
    page = (tmp_path / "report" / "report.md").read_text()
    assert "strict F1" in page and "known\\_names" in page and "predictions.tsv" in page


def test_a_model_that_writes_is_measured_and_what_it_makes_up_is_said(folder: Path, tmp_path: Path) -> None:
    options = ["--set", "max_new_tokens=12", "--set", "chunk_words=12", "--set", "prompt={text} ->"]
    outcome = sibol(folder / "writer", "--data", folder / "gold.tsv", "--out", tmp_path / "out", *options)
    assert outcome.exit_code == 0, outcome.exception
    results, _ = read(tmp_path / "out")
    assert results["metrics"]["strict_f1"]["value"] == 0.0
    assert any("generated texts repeat less than half of their source" in text for text in results["warnings"])
    assert "nothing is predicted in" in " ".join(results["warnings"])


def refusal(*arguments: object) -> Exception:
    error = sibol(*arguments).exception
    assert isinstance(error, (ConfigError, DataError)), error
    return error


def test_files_and_models_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    command = ("--data", folder / "gold.tsv", "--out", tmp_path / "out")
    (tmp_path / "cut.tsv").write_text(tsv(NAMES).replace("rained", "rainde", 1))
    assert "cut.tsv:21 has the word 'rainde', but" in str(refusal(tmp_path / "cut.tsv", *command))
    (tmp_path / "none.tsv").write_text(tsv(dict.fromkeys(NAMES, "ORG")))
    assert "No predicted type (ORG) is a type of the data (LOC, PER)" in str(refusal(tmp_path / "none.tsv", *command))
    save_tiny_tagger(tmp_path / "unnamed", labels=("LABEL_0", "LABEL_1"))
    assert "'LABEL_0', which is no label" in str(refusal(tmp_path / "unnamed", *command))
    config = json.loads((folder / "tagger" / "config.json").read_text())
    (tmp_path / "other").mkdir()
    for file in (folder / "tagger").iterdir():
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    assert "BertForMaskedLM, which neither labels words" in str(refusal(tmp_path / "other", *command))
    arguments = ["evaluate", str(folder / "perfect.tsv"), "--data", str(folder / "gold.tsv"), "--out", str(tmp_path / "out")]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, ConfigError) and "the suite bits_per_byte asks a model" in str(error)
    assert not (tmp_path / "out").exists()
