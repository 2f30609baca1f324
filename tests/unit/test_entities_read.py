"""Labelled files: what is read from HIPE's TSV and CoNLL, and that every line that is wrong is named with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.metrics.entities_read import read_tagged
from evaluation.suites.ner_data import NerOptions, find_names, period, read_items, read_predictions
from nemo_ext.common.errors import ConfigError, DataError

HEADER = "TOKEN\tNE-COARSE-LIT\tNE-COARSE-METO\tNE-FINE-LIT\tNE-FINE-METO\tNE-FINE-COMP\tNE-NESTED\tNEL-LIT\tNEL-METO\tMISC"


def hipe_line(word: str, coarse: str = "O", notes: str = "_", fine: str = "O") -> str:
    return "\t".join([word, coarse, "_", fine, "_", "_", "O", "_", "_", notes])


HIPE = "\n".join(
    [
        HEADER,
        "# hipe2022:license = CC-BY",
        "# hipe2022:document_id = gazette-1",
        "# hipe2022:date = 1848-03-02",
        "# hipe2022:dataset = mine",
        "# mine:date = never",
        hipe_line("Mr", notes="NoSpaceAfter"),
        hipe_line(".", notes=""),
        hipe_line("Pickwick", "B-PER", "LED0.25|EndOfLine", "B-pers.ind"),
        hipe_line("#"),
        hipe_line("came", notes="NoSpaceAfter|EndOfSentence"),
        hipe_line(".", notes="EndOfSentence"),
        "",
        "# hipe2022:document_id = gazette-2",
        "# hipe2022:date = 1901",
        hipe_line("New", "B-LOC", "LED0.00"),
        hipe_line("York", "I-LOC", "LED0.00"),
        "",
    ]
)

CONLL = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O

Peter NNP I-NP I-PER

-DOCSTART- -X- O O

# NN I-NP O
BRUSSELS NNP I-NP I-LOC
"""


def write(folder: Path, text: str, name: str = "data.tsv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_hipe_documents_have_words_labels_metadata_spaces_sentences_and_noise(tmp_path: Path) -> None:
    first, second = read_tagged(write(tmp_path, HIPE))
    assert (first.id, second.id) == ("gazette-1", "gazette-2")
    assert first.words == ("Mr", ".", "Pickwick", "#", "came", ".")
    assert first.labels == ("O", "O", "B-PER", "O", "O", "O")
    assert first.text() == "Mr. Pickwick # came."
    assert first.distances == (None, None, 0.25, None, None, None)
    assert (first.segments, first.sentences) == ((6,), (5, 6))
    assert first.facts == {"document_id": "gazette-1", "date": "1848-03-02", "dataset": "mine"}
    assert first.place(2) == f"{tmp_path / 'data.tsv'}:9"
    assert (period(first, 50), period(first, 10), period(second, 100)) == ("1800-1849", "1840-1849", "1900-1999")
    fine = read_tagged(tmp_path / "data.tsv", "NE-FINE-LIT")
    assert fine[0].labels[2] == "B-pers.ind"


def test_hipe_2020_segments_do_not_end_a_document(tmp_path: Path) -> None:
    lines = [
        HEADER,
        "# document_id = a" + "\t" * 9,  # as spreadsheets write it
        "# segment_iiif_link = x",
        hipe_line("A", "B-PER"),
        "# segment_iiif_link = y",
        hipe_line("B", "I-PER"),
    ]
    (document,) = read_tagged(write(tmp_path, "\n".join(lines)))
    assert (document.id, document.words) == ("a", ("A", "B"))


def test_conll_documents_and_sentences(tmp_path: Path) -> None:
    items = read_items(write(tmp_path, CONLL, "eng.conll"), NerOptions())
    first, second = items.tagged
    assert (first.words, first.segments) == (("EU", "rejects", "Peter"), (2, 3))
    assert second.words == ("#", "BRUSSELS")
    assert items.scheme == "iob1"
    assert [[(one.start, one.end, one.type) for one in entities] for entities in items.gold] == [
        [(0, 1, "ORG"), (2, 3, "PER")],
        [(1, 2, "LOC")],
    ]
    assert (items.types, items.warnings) == ({"LOC": 1, "ORG": 1, "PER": 1}, ())
    assert items.as_dict()["sha256"] == read_items(tmp_path / "eng.conll", NerOptions(scheme="iob1")).as_dict()["sha256"]
    assert read_tagged(tmp_path / "eng.conll", "3")[0].labels == ("I-NP", "I-VP", "I-NP")


def test_conll_without_document_marks_has_a_document_per_sentence_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "Anna\tB-PER\nis\tO\n\nin\tO\nRome\tB-LOC\n", "b.bio")
    write(tmp_path, "Oslo\tB-LOC\n", "a.bio")
    items = read_items(tmp_path, NerOptions())
    assert [document.words for document in items.tagged] == [("Oslo",), ("Anna", "is"), ("in", "Rome")]
    assert [document.id for document in items.tagged] == ["a.bio:1", "b.bio:1", "b.bio:4"]
    assert "every sentence counts as one" in items.warnings[0]


BAD_HIPE = {
    "masked": (hipe_line("Anna", "_"), r"data\.tsv:2: the word 'Anna' has no label in column NE-COARSE-LIT .* masked"),
    "no label": (hipe_line("Anna", "PER"), r"data\.tsv:2: 'PER' is no label of 'Anna'"),
    "columns": ("Anna\tO", r"data\.tsv:2 has 2 columns, expected 10"),
    "no word": (hipe_line("", "O"), r"data\.tsv:2 has no word"),
    "noise": (hipe_line("Anna", "B-PER", "LEDx"), r"data\.tsv:2 has 'LEDx' in column MISC"),
    "scheme": (
        hipe_line("Anna", "I-PER") + "\n" + hipe_line("Ann", "B-LOC"),
        r"keep to no scheme.*iob2: .*:2 has I-PER after nothing.*iob1: .*:3",
    ),
    "no entity": (hipe_line("Anna"), "1 documents without a single entity"),
    "twice": (
        "\n".join(2 * ["# document_id = a", hipe_line("Anna", "B-PER")]),
        r"data\.tsv:5: the document 'a' is there already, at .*data\.tsv:3",
    ),
    "empty": ("", "holds no labelled words"),
}


@pytest.mark.parametrize("case", BAD_HIPE)
def test_a_bad_hipe_line_is_named(tmp_path: Path, case: str) -> None:
    lines, complaint = BAD_HIPE[case]
    with pytest.raises(DataError, match=complaint):
        read_items(write(tmp_path, f"{HEADER}\n{lines}\n"), NerOptions())


BAD_CONLL = {
    "columns": ("Anna B-PER\nis there O\n", r"data\.tsv:2 has 3 columns, expected 2"),
    "alone": ("Anna\n", r"data\.tsv:1 has 1 columns, expected 2"),
    "no label": ("Anna PER\n", r"data\.tsv:1: 'PER' is no label"),
    "crosses": ("Anna B-PER\n\nMaria I-PER\n", r"data\.tsv:3 has I-PER after nothing"),
}


@pytest.mark.parametrize("case", BAD_CONLL)
def test_a_bad_conll_line_is_named(tmp_path: Path, case: str) -> None:
    lines, complaint = BAD_CONLL[case]
    with pytest.raises(DataError, match=complaint):
        read_items(write(tmp_path, lines), NerOptions())


def test_a_scheme_that_is_asked_for_is_kept_to(tmp_path: Path) -> None:
    path = write(tmp_path, "Anna I-PER\nis O\n")
    assert read_items(path, NerOptions()).scheme == "iob1"
    with pytest.raises(DataError, match=r"data\.tsv:1 has I-PER after nothing, which iob2 does not allow"):
        read_items(path, NerOptions(scheme="iob2"))


def test_labels_that_keep_to_no_scheme_can_be_read_as_the_hipe_scorer_reads_them(tmp_path: Path) -> None:
    path = write(tmp_path, "Anna B-PER\nof O\nthe\u00a0Great I-PER\n")
    with pytest.raises(DataError, match=r"let an I- begin an entity with --set scheme=lenient"):
        read_items(path, NerOptions())
    items = read_items(path, NerOptions(scheme="lenient"))
    assert items.tagged[0].words[2] == "the\u00a0Great"
    assert [(one.start, one.end) for one in items.gold[0]] == [(0, 1), (2, 3)]


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column 'NE-COARSE-LITT' of labels\. Did you mean 'NE-COARSE-LIT'"):
        read_tagged(write(tmp_path, HIPE), "NE-COARSE-LITT")
    with pytest.raises(ConfigError, match="the column is a number of at least 2"):
        read_tagged(write(tmp_path, CONLL), "NE-COARSE-LIT")
    with pytest.raises(DataError, match=r":3 has 4 columns, expected 9"):
        read_tagged(tmp_path / "data.tsv", "9")
    with pytest.raises(DataError, match="does not exist"):
        read_tagged(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no file that ends in \.tsv"):
        read_tagged(tmp_path / "empty")
    (tmp_path / "latin.tsv").write_bytes("Zürich B-LOC\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read_tagged(tmp_path / "latin.tsv")


def test_predictions_must_have_the_words_and_documents_of_the_data(tmp_path: Path) -> None:
    options = NerOptions()
    items = read_items(write(tmp_path, HIPE), options)
    assert read_predictions(tmp_path / "data.tsv", items, options)[1] == ("B-LOC", "I-LOC")
    lines = HIPE.split("\n")
    other = write(tmp_path, "\n".join(lines).replace("York", "Yrok"), "other.tsv")
    with pytest.raises(DataError, match=r"other\.tsv:17 has the word 'Yrok', but .*data\.tsv:17 has 'York'"):
        read_predictions(other, items, options)
    shorter = write(tmp_path, "\n".join(lines[:16]), "shorter.tsv")
    with pytest.raises(DataError, match=r"shorter\.tsv:16 begins a document of 1 words in 1 parts, but at .*data\.tsv:16 it has 2 words"):
        read_predictions(shorter, items, options)
    one = write(tmp_path, "\n".join(lines[:12]), "one.tsv")
    with pytest.raises(DataError, match=r"one\.tsv has 1 documents, but .*data\.tsv has 2"):
        read_predictions(one, items, options)


def test_known_names_are_found_exactly_and_the_longest_first(tmp_path: Path) -> None:
    write(tmp_path, "New B-LOC\nYork I-LOC\n\nYork B-PER\n\nYork B-LOC\n\nYork B-LOC\n\nNew B-PER\n\nparis B-LOC\n", "train.tsv")
    data = write(tmp_path, "In O\nNew B-LOC\nYork I-LOC\nYork B-LOC\nParis B-LOC\n")
    items = read_items(data, NerOptions(train=str(tmp_path / "train.tsv")))
    assert items.known_names is not None
    assert items.known_names[("York",)] == "LOC"
    found = find_names(items.tagged[0], items.known_names)
    assert [(one.start, one.end, one.type) for one in found] == [(1, 3, "LOC"), (3, 4, "LOC")]
