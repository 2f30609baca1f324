"""The report page: complete, self-contained, escaped, and its numbers those of the files."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evaluation.report import write_report
from evaluation.table import number
from nemo_ext.common.errors import DataError, OutputExistsError
from tests.support.evaluation_folders import write_results, write_run

VOID = {"meta", "img", "line", "br", "link", "input"}
BASE, BETTER = [1.0, 0.0] * 20, [1.0, 0.0] * 10 + [1.0] * 20


class Page(HTMLParser):
    """Tables as texts by id, attributes of all tags, and tags that were not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self._table = ""
        self.feed(text)
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._table = dict(attrs).get("id") or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self._open or self._open.pop() != tag):
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[self._table][-1][-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Page]:
    """Two runs, one of them going on with a hostile name, one that has not begun, and two models with a baseline."""
    folder = tmp_path_factory.mktemp("report")
    categories = ["easy <i>", "hard"] * 20
    inputs = [write_run(folder / "plain", resumed=10), write_run(folder / "<script>alert(1)<!-- $x$", steps=12)]
    (folder / "fresh").mkdir()
    (folder / "fresh" / "run.yaml").write_text("train: {max_steps: 5}\n")
    with (inputs[1] / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 13, "lo')  # as it is read while a line is being written
    results = [
        write_results(folder / "a", BASE, baseline=[0.0] * 40, categories=categories, model="a", warnings=['"A" & <b>']),
        write_results(folder / "b", BETTER, categories=categories, model="b"),
    ]
    summary = write_report([*inputs, folder / "fresh", *results], folder / "out")
    return folder, summary, Page((folder / "out" / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_needs_nothing_but_itself(report: tuple[Path, dict[str, Any], Page]) -> None:
    folder, _, page = report
    assert page.unbalanced == []
    assert not {"script", "link", "iframe", "object", "b", "i"} & {tag for tag, _ in page.tags}
    references = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "srcset")]
    assert references and all(re.match(r"data:image/svg\+xml;base64,|#", value or "") for value in references)
    text = (folder / "out" / "report.html").read_text()
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[\w+/=]+", "", text))


def test_everything_has_a_name_for_those_who_cannot_see_it(report: tuple[Path, dict[str, Any], Page]) -> None:
    page = report[2]
    assert all((attributes.get("alt") or "").strip() for tag, attributes in page.tags if tag == "img")
    assert [attributes["lang"] for tag, attributes in page.tags if tag == "html"] == ["en"]
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    identities = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    targets = {(value or "")[1:] for _, attributes in page.tags for name, value in attributes.items() if name == "href"}
    assert targets <= set(identities) and targets
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags)


def test_every_number_of_the_score_table_is_that_of_results_json(report: tuple[Path, dict[str, Any], Page]) -> None:
    folder, _, page = report
    rows = {row[0]: row for row in page.tables["pacute_scores"]}
    results = {name: json.loads((folder / name / "results.json").read_text()) for name in "ab"}
    for label, part in (("a", results["a"]), ("b", results["b"]), ("base", results["a"]["baseline"])):
        entry = part["metrics"]["accuracy"]
        assert rows[label][1:3] == [number(entry["value"]), f"[{number(entry['low'])}, {number(entry['high'])}]"]
    assert rows["uniform"][1] == number(0.25)


def test_training_figures_are_those_of_the_log_and_missing_parts_are_said(report: tuple[Path, dict[str, Any], Page]) -> None:
    folder, summary, page = report
    rows = {row[0]: row[1:] for row in page.tables["runs"]}
    last = [json.loads(line) for line in (folder / "plain" / "metrics.jsonl").read_text().splitlines() if '"loss"' in line][-1]
    assert rows["last training loss (nats/token)"] == [
        number(last["loss"]),
        number(summary["comparison"]["runs"][1]["figures"]["last_loss"]),
        "-",
    ]
    assert rows["state"] == ["not finished, 20 of 20 steps", "not finished, 12 of 20 steps", "not finished, 0 of 5 steps"]
    text = " ".join(page.texts)
    assert "fresh has not logged a training step yet" in text and "majority, human" in text
    assert '"A" & <b>' in text and "<script>alert(1)<!-- $x$" in text  # shown, not obeyed


def test_every_source_is_listed_with_its_digest(report: tuple[Path, dict[str, Any], Page]) -> None:
    folder, summary, page = report
    listed = {Path(entry["file"]): entry["sha256"] for entry in summary["sources"]}
    expected = [folder / "plain" / "metrics.jsonl", folder / "a" / "results.json", folder / "b" / "per_document.jsonl"]
    for path in expected:
        assert listed[path] == hashlib.sha256(path.read_bytes()).hexdigest()
    names = {row[0] for row in page.tables["sources"][1:]}
    assert {row[-1] for row in page.tables["pacute_scores"][1:]} <= names
    assert names == {entry["source"] for entry in summary["sources"]}


def test_tables_and_figures_are_files_too(report: tuple[Path, dict[str, Any], Page]) -> None:
    folder, _, page = report
    out = folder / "out"
    assert (
        {path.stem for path in (out / "tables").glob("*.csv")} == {path.stem for path in (out / "tables").glob("*.tex")} == set(page.tables)
    )
    figures = {path.stem for path in (out / "figures").iterdir()}
    assert figures == {"loss", "learning_rate", "grad_norm", "tokens_per_s", "pacute_categories"}
    assert all(f"figures/{name}.svg" in (out / "report.md").read_text() for name in figures)
    assert "<script" not in (out / "figures" / "loss.svg").read_text()


def test_the_same_files_give_the_same_report_and_a_foreign_folder_is_kept(tmp_path: Path) -> None:
    inputs = [write_run(tmp_path / "run", steps=300), write_results(tmp_path / "a", BASE)]
    for name in ("one", "two"):
        write_report(inputs, tmp_path / name)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path
    with pytest.raises(OutputExistsError, match="already exists"):
        write_report(inputs, tmp_path / "one")
    write_report(inputs, tmp_path / "one", overwrite=True)
    with pytest.raises(OutputExistsError, match=r"holds no summary\.json of an earlier call"):
        write_report(inputs, tmp_path / "run", overwrite=True)
    with pytest.raises(DataError, match="Nothing to report on"):
        write_report([], tmp_path / "three")


def test_bars_that_have_no_room_in_the_figure_are_counted(tmp_path: Path) -> None:
    names = [f"category {number}" for number in range(61)]
    write_report([write_results(tmp_path / "a", [1.0, 0.0] * 61, categories=names * 2)], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "The figure has the first 60 of 61 bars" in text and "category 60" in text
