"""Cut texts give the ids of whole texts, and the faster encoder those of the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nemo_ext.common.errors import ConfigError
from nemo_ext.tokenizers import TextTokenizer, load
from nemo_ext.tokenizers.cutting import CUT, GPT2, LLAMA3, QWEN2, can_cut, chunks
from nemo_ext.tokenizers.fast_encoder import TiktokenEncoder, fast_encoder
from nemo_ext.tokenizers.pretokens import GPT2 as GPT2_RULE
from nemo_ext.tokenizers.pretokens import pretoken_rule
from tests.support.small_text import TEXTS

ALPHABET = "ab AB\u0130 \u017f's'S.,!?-  \n\r\t\u00a0\u2028\u3000e\u0301\u00e9\u212b1\u0661\u6f22\u5b57\U0001f600\u2581<>_"
TEXT = st.text(st.sampled_from(ALPHABET) | st.characters(exclude_categories=["Cs"]), max_size=60)
SPECIALS = ["<unk>", "<eos>"]


def byte_level(pattern: str | None, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    if pattern is not None:
        from tokenizers import Regex

        steps.insert(0, pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False))
    tokenizer.pre_tokenizer = steps[0] if pattern is None else pre_tokenizers.Sequence(steps)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, ALPHABET * 5, "it's IT'S they're 1234 12345  \n\n x" * 5], trainer)
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    specials = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False))
    parsed = json.loads(tokenizer.to_str())
    parsed["added_tokens"] = parsed["added_tokens"][:2]
    parsed["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    tokenizer = Tokenizer.from_str(json.dumps(parsed))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIALS, show_progress=False))
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: byte_level(None),
    "qwen2": lambda: byte_level(QWEN2, normalizers.NFC()),
    "llama3": lambda: byte_level(LLAMA3),
    "metaspace": metaspace,
    "wordpiece": word_pieces,
}
BYTE_LEVEL = ("gpt2", "qwen2", "llama3")


def write(folder: Path, tokenizer: Tokenizer) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    return folder


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return load(write(tmp_path_factory.mktemp("kind") / request.param, KINDS[request.param]()))


@pytest.fixture(scope="module", params=BYTE_LEVEL)
def fast(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, TiktokenEncoder]:
    tokenizer = load(write(tmp_path_factory.mktemp("fast") / request.param, KINDS[request.param]()))
    encoder = fast_encoder(tokenizer)
    assert isinstance(encoder, TiktokenEncoder)
    return tokenizer, encoder


@given(texts=st.lists(TEXT | st.sampled_from(TEXTS), min_size=1, max_size=8), joint=st.sampled_from([" ", "", "\n", ". "]))
@settings(deadline=None)
def test_pieces_between_cuts_encode_to_the_ids_of_the_whole(tokenizer: TextTokenizer, texts: list[str], joint: str) -> None:
    assert can_cut(tokenizer.path)
    text = joint.join(texts)
    places = [0, *(match.start() for match in CUT.finditer(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert tokenizer.encode_batch(pieces).ids.tolist() == tokenizer.encode_batch([text]).ids.tolist()


@given(st.lists(TEXT), st.integers(1, 50))
def test_chunks_are_the_text_and_end_at_cuts(pieces: list[str], size: int) -> None:
    found = list(chunks(pieces, CUT, size))
    assert "".join(found) == "".join(pieces)
    ends = {match.end() for match in CUT.finditer("".join(pieces))}
    assert all(sum(map(len, found[: number + 1])) in ends for number in range(len(found) - 1))


def test_chunks_stay_near_their_size_wherever_there_are_cuts() -> None:
    assert max(map(len, chunks(["word " * 7] * 10_000, CUT, 1000))) < 1100


@given(texts=st.lists(TEXT, max_size=6))
@settings(deadline=None, max_examples=300)
def test_the_fast_encoder_gives_the_ids_of_the_tokenizer(fast: tuple[TextTokenizer, TiktokenEncoder], texts: list[str]) -> None:
    expected, found = fast[0].encode_batch(texts), fast[1].encode_batch(texts)
    assert found.ids.tolist() == expected.ids.tolist() and found.offsets.tolist() == expected.offsets.tolist()
    assert found.ids.dtype == expected.ids.dtype


def test_most_text_goes_the_fast_way(fast: tuple[TextTokenizer, TiktokenEncoder]) -> None:
    assert all(map(fast[1].understands, TEXTS))


def test_long_runs_of_spaces_are_encoded_too(fast: tuple[TextTokenizer, TiktokenEncoder]) -> None:
    for text in (" " * 300_000, "a" * 50_000, "\n " * 50_000):
        assert np.array_equal(fast[1].encode_batch([text]).ids, fast[0].encode_batch([text]).ids)


def test_texts_that_spell_an_added_token_go_to_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = byte_level(QWEN2)
    tokenizer.add_tokens(["<tool>"])
    loaded = load(write(tmp_path / "added", tokenizer))
    encoder = fast_encoder(loaded)
    assert isinstance(encoder, TiktokenEncoder) and not encoder.understands("a <tool> b") and encoder.understands("a <eos> b")
    texts = ["a <tool> b", "a <eos> b"]
    assert encoder.encode_batch(texts).ids.tolist() == list(chain(loaded.encode_batch(texts).ids.tolist()))


def changed(tokenizer: Tokenizer, **model: Any) -> Tokenizer:
    parsed = json.loads(tokenizer.to_str())
    parsed["model"] |= model
    return Tokenizer.from_str(json.dumps(parsed))


def test_tokenizers_of_another_shape_keep_their_own_encoder(tmp_path: Path) -> None:
    plain = json.loads(byte_level(None).to_str())["model"]
    merges, vocabulary = plain["merges"], plain["vocab"]
    strangers = {
        "wordpiece": word_pieces(),
        "pattern": byte_level(GPT2.replace("'s", "'z")),
        "unreachable": changed(byte_level(None), merges=[*merges[5:], *merges[:5]], vocab=vocabulary),
    }
    for name, stranger in strangers.items():
        assert fast_encoder(load(write(tmp_path / name, stranger))) is None, name


def test_no_cut_where_a_token_reaches_across_a_space(tmp_path: Path) -> None:
    parsed = json.loads(metaspace().to_str())
    parsed["model"]["vocab"]["a\u2581n"] = len(parsed["model"]["vocab"])
    assert not can_cut(write(tmp_path / "across", Tokenizer.from_str(json.dumps(parsed))))
    prefixed = json.loads(byte_level(None).to_str())
    prefixed["pre_tokenizer"]["add_prefix_space"] = True
    assert not can_cut(write(tmp_path / "prefixed", Tokenizer.from_str(json.dumps(prefixed))))


def test_no_cut_where_an_added_token_ends_with_a_space(tmp_path: Path) -> None:
    tokenizer = byte_level(None)
    tokenizer.add_tokens(["step:"])
    assert can_cut(write(tmp_path / "before", tokenizer))
    tokenizer.add_tokens(["answer: "])
    assert not can_cut(write(tmp_path / "after", tokenizer))


def test_an_old_tokenizer_json_that_does_not_mention_the_builtin_pattern_uses_it() -> None:
    assert pretoken_rule({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}).pattern == GPT2_RULE
    split = {"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "Isolated", "invert": False}
    with pytest.raises(ConfigError, match="not known here"):
        pretoken_rule({"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]})
