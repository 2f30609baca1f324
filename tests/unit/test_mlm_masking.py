"""Masking: the rates are those asked for, special tokens and padding rows stay out, whole words stay whole, nothing but the key counts."""

from __future__ import annotations

from functools import cache
from math import sqrt
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nemo_ext.common.errors import ConfigError
from nemo_ext.tasks.mlm_masking import IGNORED, Masking, mask
from nemo_ext.tasks.mlm_vocabulary import LONGEST_WORD, MaskingVocabulary, masking_vocabulary
from nemo_ext.tokenizers import load
from tests.support.encoder_tokenizers import ENCODER_TOKENIZERS
from tests.support.small_text import TEXTS, small_tokenizer

KINDS = st.sampled_from(sorted(ENCODER_TOKENIZERS))


@cache
def tokenizer_folder(kind: str) -> Path:
    return ENCODER_TOKENIZERS[kind](Path(mkdtemp(prefix="sibol-test-")) / kind).path


@cache
def vocabulary(kind: str) -> MaskingVocabulary:
    return masking_vocabulary(tokenizer_folder(kind))


@cache
def corpus(kind: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All of the small text as pieces in their template: ids, and where each piece begins."""
    words, batch = vocabulary(kind), load(tokenizer_folder(kind)).encode_batch(TEXTS * 4)
    pieces = [[*words.prefix, *batch.document(number), *words.suffix] for number in range(batch.documents)]
    lengths = np.array([len(piece) for piece in pieces])
    return np.concatenate(pieces).astype(np.int64), np.cumsum(lengths) - lengths


def masked(kind: str, epoch: int = 0, **settings: object) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ids, what is shown, labels."""
    ids, starts = corpus(kind)
    options = {"rate": 0.3, "mask_share": 0.8, "random_share": 0.1, "whole_words": False, "seed": 1} | settings
    return ids, *mask(ids, starts, np.arange(len(starts)), epoch, Masking(**options), vocabulary(kind))  # type: ignore[arg-type]


def within(count: int, trials: int, rate: float) -> bool:
    """Whether a count is within five standard deviations of a binomial's mean."""
    return abs(count - trials * rate) <= 5 * sqrt(trials * rate * (1 - rate)) + 1e-9


@given(KINDS, st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**64), st.booleans())
def test_rates_and_shares_are_those_asked_for(kind: str, rate: float, first: float, second: float, seed: int, whole_words: bool) -> None:
    mask_share, random_share = first, (1 - first) * second
    settings = {"rate": rate, "mask_share": mask_share, "random_share": random_share, "seed": seed, "whole_words": whole_words}
    ids, shown, labels = masked(kind, **settings)
    words, chosen = vocabulary(kind), labels != IGNORED
    assert not chosen[~words.maskable[ids]].any() and np.array_equal(shown[~chosen], ids[~chosen])
    assert np.array_equal(labels[chosen], ids[chosen])
    if not whole_words:
        assert within(int(chosen.sum()), int(words.maskable[ids].sum()), rate)
    changed = (shown != ids) & (shown != words.mask_id)
    assert within(int((shown == words.mask_id).sum()), int(chosen.sum()), mask_share)
    drawn_otherwise = 1 - 1 / len(words.replacements)  # a random token may be the one that is there
    assert within(int(changed.sum()), int(chosen.sum()), random_share * drawn_otherwise)
    assert set(shown[changed].tolist()) <= set(words.replacements.tolist())


@pytest.mark.parametrize("kind", ENCODER_TOKENIZERS)
def test_random_tokens_are_all_real_ones_and_only_these(kind: str) -> None:
    draws: set[int] = set()
    for epoch in range(6):
        _, shown, labels = masked(kind, epoch, rate=1.0, mask_share=0.0, random_share=1.0)
        draws |= set(shown[labels != IGNORED].tolist())
    tokenizer = load(tokenizer_folder(kind))
    real = [number for number in range(tokenizer.vocab_size) if tokenizer.token_text(number)]
    special = {tokenizer.token_text(number) for number in tokenizer.special_ids.values()} | {"[unused0]"}
    assert draws == {number for number in real if tokenizer.token_text(number) not in special}


@given(KINDS, st.integers(0, 2**32), st.integers(0, 50))
def test_whole_words_are_chosen_whole(kind: str, seed: int, epoch: int) -> None:
    ids, starts = corpus(kind)
    _, _, labels = masked(kind, epoch, whole_words=True, seed=seed)
    words = np.cumsum(vocabulary(kind).word_starts(ids, starts))
    maskable = vocabulary(kind).maskable[ids]
    by_word = np.bincount(words[maskable], weights=labels[maskable] != IGNORED) / np.maximum(np.bincount(words[maskable]), 1)
    assert set(by_word.tolist()) <= {0.0, 1.0}
    counts = np.unique(words[maskable])
    chosen_words = np.unique(words[labels != IGNORED])
    assert within(len(chosen_words), len(counts), 0.3)


@pytest.mark.parametrize("kind", ENCODER_TOKENIZERS)
def test_words_are_what_people_call_words(kind: str) -> None:
    text = "Ang tumubo, (puno) magsulat: nagsibol tubo12 ay.\nkabunga"
    words, tokenizer = vocabulary(kind), load(tokenizer_folder(kind))
    ids = tokenizer.encode_batch([text]).ids.astype(np.int64)
    starts = words.word_starts(ids, np.array([0]))
    groups = [[tokenizer.token_text(int(number)) for number in part] for part in np.split(ids, np.flatnonzero(starts)[1:])]
    spelled = ["".join(group).replace("##", "").translate(str.maketrans("", "", "\u0120\u010a\u2581\n")) for group in groups]
    expected = ["Ang", "tumubo", ",", "(", "puno", ")", "magsulat", ":", "nagsibol", "tubo12", "ay", ".", "kabunga"]
    assert [word for word in spelled if word and word != "[UNK]"] == [word for word in expected if word in "".join(spelled)]
    assert {"tumubo", "magsulat", "kabunga"} <= set(spelled)


def test_ideographs_are_words_and_long_runs_are_cut() -> None:
    words, tokenizer = vocabulary("byte-level"), load(tokenizer_folder("byte-level"))
    ids = tokenizer.encode_batch(["\u6c34\u706b\u6728"]).ids.astype(np.int64)
    assert words.word_starts(ids, np.array([0])).sum() == 3
    run = np.full(3 * LONGEST_WORD, tokenizer.encode_batch(["z"]).ids[0], dtype=np.int64)
    assert np.flatnonzero(words.word_starts(run, np.array([0]))).tolist() == [0, LONGEST_WORD, 2 * LONGEST_WORD]


@given(KINDS, st.integers(0, 2**32), st.integers(0, 9), st.booleans(), st.randoms(use_true_random=False))
def test_a_piece_is_masked_alike_wherever_it_lies(kind: str, seed: int, epoch: int, whole_words: bool, order: object) -> None:
    ids, starts = corpus(kind)
    _, shown, labels = masked(kind, epoch, seed=seed, whole_words=whole_words)
    ends = np.append(starts, len(ids))[1:]
    chosen = order.sample(range(len(starts)), 5)  # type: ignore[attr-defined]
    parts = [slice(starts[piece], ends[piece]) for piece in chosen]
    lengths = np.array([part.stop - part.start for part in parts])
    settings = Masking(0.3, 0.8, 0.1, whole_words, seed)
    row = np.concatenate([ids[part] for part in parts])
    found = mask(row, np.cumsum(lengths) - lengths, np.array(chosen), epoch, settings, vocabulary(kind))
    assert np.array_equal(found[0], np.concatenate([shown[part] for part in parts]))
    assert np.array_equal(found[1], np.concatenate([labels[part] for part in parts]))


def test_masks_change_with_the_epoch_the_seed_and_the_piece() -> None:
    results = [masked("byte-level", epoch, seed=seed)[1].tobytes() for epoch in (0, 1) for seed in (0, 1)]
    assert len(set(results)) == 4
    ids, starts = corpus("byte-level")
    twin = np.concatenate([ids[: starts[1]]] * 2)
    shown, _ = mask(twin, np.array([0, starts[1]]), np.array([0, 1]), 0, Masking(0.5, 1.0, 0.0, False, 1), vocabulary("byte-level"))
    assert not np.array_equal(shown[: starts[1]], shown[starts[1] :])


@pytest.mark.parametrize("kind", ENCODER_TOKENIZERS)
def test_the_template_is_the_tokenizers_own(kind: str) -> None:
    from transformers import AutoTokenizer

    words, theirs = vocabulary(kind), AutoTokenizer.from_pretrained(tokenizer_folder(kind))
    ids = theirs("tubo")["input_ids"]
    inner = theirs("tubo", add_special_tokens=False)["input_ids"]
    assert [*words.prefix, *inner, *words.suffix] == ids and len(ids) == len(inner) + 2
    assert (words.mask_id, words.pad_id) == (theirs.mask_token_id, theirs.pad_token_id)


def test_a_tokenizer_without_a_mask_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a tokenizer with a mask token .* \(special tokens: <\|endoftext\|>"):
        masking_vocabulary(small_tokenizer(tmp_path / "tokenizer").path)
