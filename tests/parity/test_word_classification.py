"""Labels of words against loops written out: one sequence, one window and one forward pass at a time, without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.classification import TokenClassifier, load_classifier, overlapping_windows, widest_context
from evaluation.loading import open_folder
from nemo_ext.common.errors import ConfigError, DataError
from tests.support.small_text import TEXTS
from tests.support.tiny_taggers import LABELS, save_tiny_tagger

CONTEXT = 24
SEQUENCES = [text.split()[:size] for text, size in zip(TEXTS, (60, 3, 18, 1, 40), strict=False)]
NAMES = [f"text {number}" for number in range(len(SEQUENCES))]


def load(folder: Path, **options: Any) -> TokenClassifier:
    return load_classifier(open_folder(folder), "cpu", **options)


def silent(_: float) -> None:
    """No progress."""


def naive_labels(folder: Path, words: list[str]) -> list[str]:
    """Windows of the context that overlap by half; each word from the one that leaves it the most tokens on its shorter side."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokens, first = [], []
    for word in words:
        first.append(len(tokens))
        tokens += tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    room = CONTEXT - 2
    starts = [0] if len(tokens) <= room else [*range(0, len(tokens) - room, room // 2), len(tokens) - room]
    labels = []
    for place in first:
        best, most = 0, -1
        for start in starts:
            end = min(start + room, len(tokens))
            before = place - start if start else 10**6
            after = end - 1 - place if end < len(tokens) else 10**6
            if start <= place < end and min(before, after) > most:
                best, most = start, min(before, after)
        ids = [tokenizer.cls_token_id, *tokens[best : best + room], tokenizer.sep_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, 1 + place - best]
        labels.append(model.config.id2label[int(logits.argmax())])
    return labels


@pytest.mark.parametrize("tokenizer", ["word-piece", "byte-level"])
def test_labels_equal_the_naive_loop_for_sequences_shorter_and_longer_than_the_context(tmp_path: Path, tokenizer: str) -> None:
    folder = save_tiny_tagger(tmp_path / "model", context=CONTEXT, tokenizer=tokenizer)
    found = load(folder).classify(SEQUENCES, NAMES, silent)
    expected = [naive_labels(folder, words) for words in SEQUENCES]
    assert [list(one.labels) for one in found] == expected
    assert len({label for labels in expected for label in labels}) > 1  # not all the same
    assert load(folder, batch_size=1).classify(SEQUENCES[::-1], NAMES, silent)[::-1] == found


def test_words_that_the_tokenizer_does_not_see_are_outside_and_counted(tmp_path: Path) -> None:
    model = load(save_tiny_tagger(tmp_path / "model", context=CONTEXT))
    done: list[float] = []
    one, nothing, empty = model.classify([["tree", " ", "tree"], [" "], []], NAMES, done.append)
    assert (one.labels[1], one.unseen, len(one.labels)) == ("O", 1, 3)
    assert (nothing.labels, nothing.unseen, empty.labels) == (("O",), 1, ())
    assert sum(done) == len("tree tree")


@given(tokens=st.integers(1, 90), room=st.integers(2, 20), data=st.data())
def test_windows_cover_the_text_and_overlap_by_half(tokens: int, room: int, data: Any) -> None:
    windows = overlapping_windows(tokens, room)
    assert windows[0, 0] == 0 and windows[-1, 1] == tokens
    assert (windows[:, 1] - windows[:, 0] == min(room, tokens)).all()
    assert (np.diff(windows[:, 0]) <= (room + 1) // 2).all() and (np.diff(windows[:, 0]) > 0).all()
    places = np.array(data.draw(st.lists(st.integers(0, tokens - 1), min_size=1, max_size=9)), dtype=np.int64)
    chosen = windows[widest_context(windows, places, tokens)]
    assert ((chosen[:, 0] <= places) & (places < chosen[:, 1])).all()
    # No word has less than a quarter of the window on a side where the text goes on.
    assert ((places - chosen[:, 0] >= room // 4 - 1) | (chosen[:, 0] == 0)).all()
    assert ((chosen[:, 1] - 1 - places >= room // 4 - 1) | (chosen[:, 1] == tokens)).all()


def test_a_space_before_words_is_put_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = save_tiny_tagger(tmp_path / "model", context=CONTEXT, tokenizer="byte-level")
    words = ["tree", "house"]
    with_space = load(folder, add_prefix_space=True)
    plain = load(folder)._encode([words], special=False)["input_ids"][0]
    spaced = with_space._encode([words], special=False)["input_ids"][0]
    assert spaced == with_space._tokenizer(" tree house", add_special_tokens=False)["input_ids"]
    assert plain != spaced


def test_positions_that_roberta_does_not_use_are_not_counted(tmp_path: Path) -> None:
    folder = save_tiny_tagger(tmp_path / "model", context=CONTEXT, kind="Roberta")
    model = load(folder)
    assert model.context == CONTEXT - 2  # position ids begin after that of the padding token, 1
    assert len(model.classify(SEQUENCES, NAMES, silent)[0].labels) == len(SEQUENCES[0])


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_tiny_tagger(tmp_path / "model", context=CONTEXT)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][1] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="a word of text 2 label scores that are NaN"):
        load(folder).classify(SEQUENCES, NAMES, silent)


def test_a_context_without_room_for_words_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_tagger(tmp_path / "model", context=CONTEXT)
    with pytest.raises(ConfigError, match=r"leaves 1 for words"):
        load(folder, context=3)
    assert load(folder).labels == LABELS
