"""Training gives exactly what was asked for, the same every time, and replaces nothing but a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError
from nemo_ext.tokenizers import TextTokenizer, train
from nemo_ext.tokenizers.training import KINDS
from tests.support.small_text import TEXTS, small_tokenizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: train(TEXTS, 330, folder / kind, kind=kind) for kind in KINDS}


def test_the_same_text_gives_the_same_files(tmp_path: Path) -> None:
    first, second = small_tokenizer(tmp_path / "a"), small_tokenizer(tmp_path / "b")
    names = sorted(path.name for path in first.path.iterdir())
    assert names == ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert all((first.path / name).read_bytes() == (second.path / name).read_bytes() for name in names)
    assert first.fingerprint == second.fingerprint


def test_the_end_of_text_token_comes_first_and_then_the_bytes(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path / "a")
    assert tokenizer.eod_id == 0
    assert sorted(tokenizer.token_bytes[1:257]) == [bytes([byte]) for byte in range(256)]


def test_digits_stay_single_and_words_keep_their_space_as_in_qwen2(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(tmp_path / "a")
    pieces = [tokenizer.token_bytes[token_id] for token_id in tokenizer.encode_batch(["number 1234"]).ids]
    assert pieces[-5:] == [b" ", b"1", b"2", b"3", b"4"]
    assert b" number" in tokenizer.token_bytes and not any(b"12" in token for token in tokenizer.token_bytes)


@given(text=st.text())
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_back_the_bytes_of_any_text(kind: str, text: str, trained: dict[str, TextTokenizer]) -> None:
    batch = trained[kind].encode_batch([text])
    assert trained[kind].decode_bytes(batch.ids) == text.encode("utf-8")


def test_gpt2_keeps_digits_together_and_gemma_marks_spaces_and_falls_back_on_bytes(trained: dict[str, TextTokenizer]) -> None:
    def pieces(kind: str, text: str) -> list[str]:
        return [trained[kind].token_text(token_id) for token_id in trained[kind].encode_batch([text]).ids]

    assert pieces("gpt2", " number 11")[-1] == "\u012011"
    assert pieces("gemma", "Ang number")[-1] == "\u2581number"
    assert pieces("gemma", "\U0001f331") == ["<0xF0>", "<0x9F>", "<0x8C>", "<0xB1>"]
    assert trained["gemma"].eod_id == 0


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kind 'llama' is not known. Choose one of: qwen2, gpt2, gemma"):
        train(TEXTS, 300, tmp_path / "a", kind="llama")


def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_what_it_can(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"supports only (\d+) tokens, 900 were asked for.*--vocab-size \1"):
        train(["abcabc"], 900, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_vocabulary_without_room_for_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vocab_size=256 is too small.*257"):
        train(TEXTS, 256, tmp_path / "a")


def test_an_error_while_texts_are_read_reaches_the_caller(tmp_path: Path) -> None:
    def texts() -> Iterator[str]:
        yield "abc"
        raise DataError("a.jsonl:2: broken")

    with pytest.raises(DataError, match=r"a.jsonl:2: broken"):
        train(texts(), 300, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_only_a_tokenizer_is_overwritten_and_only_on_request(tmp_path: Path) -> None:
    folder = small_tokenizer(tmp_path / "a").path
    with pytest.raises(OutputExistsError, match=r"already exists.*--overwrite"):
        train(TEXTS, 300, folder)
    assert train(TEXTS, 300, folder, overwrite=True).vocab_size == 300
    (folder / "model.safetensors").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"more than a tokenizer .model.safetensors."):
        train(TEXTS, 300, folder, overwrite=True)
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"
