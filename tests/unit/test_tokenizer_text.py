"""Ids and bytes: encoding is complete, decoding is exact, and a tokenizer is known by its fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from nemo_ext.common.errors import DataError
from nemo_ext.tokenizers import TextTokenizer, load
from nemo_ext.tokenizers.text_tokenizer import id_dtype
from nemo_ext.tokenizers.token_bytes import byte_alphabet
from tests.support.small_text import TEXTS, VOCAB_SIZE, small_tokenizer

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


def change_json(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@given(texts=st.lists(TEXT, max_size=5))
def test_decoding_gives_back_exactly_the_bytes_of_every_text(tokenizer: TextTokenizer, texts: list[str]) -> None:
    batch = tokenizer.encode_batch(texts)
    assert batch.documents == len(texts)
    assert [tokenizer.decode_bytes(batch.document(number)) for number in range(len(texts))] == [text.encode() for text in texts]


@given(texts=st.lists(TEXT, min_size=1, max_size=3), cut=st.integers(0, 50))
def test_bytes_of_the_parts_join_to_the_whole_wherever_ids_are_cut(tokenizer: TextTokenizer, texts: list[str], cut: int) -> None:
    ids = tokenizer.encode_batch(texts).document(0)
    assert tokenizer.decode_bytes(ids[:cut]) + tokenizer.decode_bytes(ids[cut:]) == texts[0].encode()


def test_ids_are_those_of_the_tokenizers_library(tokenizer: TextTokenizer) -> None:
    reference = Tokenizer.from_file(str(tokenizer.path / "tokenizer.json"))
    expected = [reference.encode(text, add_special_tokens=False).ids for text in TEXTS]
    batch = tokenizer.encode_batch(TEXTS)
    assert [batch.document(number).tolist() for number in range(len(TEXTS))] == expected
    assert batch.ids.dtype == np.uint16


def test_text_that_spells_a_control_token_does_not_become_one(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode_batch(["a<|endoftext|>b"]).ids
    assert tokenizer.eod_id not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>b"
    assert tokenizer.decode([tokenizer.eod_id]) == "<|endoftext|>"


def test_a_saved_truncation_neither_cuts_documents_nor_changes_the_fingerprint(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.copy(tmp_path)
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    raw.enable_truncation(4)
    raw.enable_padding(length=7)
    raw.save(str(tmp_path / "tokenizer.json"))
    changed = load(tmp_path)
    assert changed.encode_batch(TEXTS[:3]).ids.tolist() == tokenizer.encode_batch(TEXTS[:3]).ids.tolist()
    assert changed.fingerprint == tokenizer.fingerprint


def test_the_fingerprint_ignores_spelling_and_sees_vocabulary_merges_and_special_tokens(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.copy(tmp_path)
    file = tmp_path / "tokenizer.json"
    parsed = json.loads(file.read_text())
    older = parsed["model"] | {"merges": [" ".join(merge) for merge in parsed["model"]["merges"]]}
    file.write_text(json.dumps({"model": older, **{key: parsed[key] for key in parsed if key != "model"}}, indent=3))
    assert load(tmp_path).fingerprint == tokenizer.fingerprint
    change_json(file, model=parsed["model"] | {"merges": parsed["model"]["merges"][:-1]})
    assert load(tmp_path).fingerprint != tokenizer.fingerprint
    change_json(file, model=parsed["model"])
    assert load(tmp_path).fingerprint == tokenizer.fingerprint
    change_json(tmp_path / "tokenizer_config.json", bos_token="<|endoftext|>")
    assert load(tmp_path).fingerprint != tokenizer.fingerprint


def test_all_tokenizer_files_travel_and_a_models_weights_do_not(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.copy(tmp_path / "model")
    for name in ("model.safetensors", "config.json", "chat_template.jinja"):
        (tmp_path / "model" / name).write_text("{}")
    names = load(tmp_path / "model").copy(tmp_path / "copy")
    assert sorted(names) == ["chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(names)


def test_special_tokens_are_read_from_either_file_and_in_either_form(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.copy(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert load(tmp_path).eod_id == 0
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "!"}}))
    assert load(tmp_path).decode([load(tmp_path).eod_id]) == "!"


def test_unusable_folders_are_refused_with_a_remedy(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Tokenizer folder not found"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no tokenizer.json.*save_pretrained"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="is not a tokenizer"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Novel", "vocab": {}}}')
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be opened by the installed tokenizers \d+\.\d+"):
        load(tmp_path)
    tokenizer.copy(tmp_path)
    (tmp_path / "special_tokens_map.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(DataError, match=r"no token that ends a document.*'<eos>'.*Set eos_token"):
        load(tmp_path)


def sentencepiece_style(folder: Path, prefix_space: bool) -> TextTokenizer:
    """Spaces as U+2581 and unknown characters as bytes, as Gemma (no prefix space) and Llama 2 (prefix space) have it."""
    letters = ["<unk>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "\u2581a", "ab"]
    vocabulary = {token: number for number, token in enumerate(letters)}
    model = models.BPE(vocabulary, [("\u2581", "a"), ("a", "b")], byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    prepend = [normalizers.Prepend("\u2581")] if prefix_space else []
    tokenizer.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "\u2581")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    tokenizer.add_special_tokens(["<eos>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    return load(folder)


@pytest.mark.parametrize("prefix_space", [False, True])
def test_sentencepiece_style_tokens_spell_spaces_and_bytes(tmp_path: Path, prefix_space: bool) -> None:
    tokenizer = sentencepiece_style(tmp_path / "spm", prefix_space)
    for text in ("a b ab", " a", "caf\u00e9 \u65e5\u672c <0x41>", "\n\n a"):
        assert tokenizer.decode_bytes(tokenizer.encode_batch([text]).ids) == text.encode()


def test_tokens_that_do_not_spell_text_are_refused_where_exact_bytes_are_needed(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "puno": 2, "##ng": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"sep_token": "[SEP]"}')
    bert = load(tmp_path)
    assert bert.eod_id == 1 and bert.encode_batch(["punong puno"]).ids.tolist() == [2, 3, 2]
    assert bert.token_text(3) == "##ng"
    with pytest.raises(DataError, match=r"do not spell the text exactly.*WordPiece"):
        bert.decode_bytes([2])


def test_the_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    alphabet = byte_alphabet()
    assert set(alphabet) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str("\u00e9\n \u65e5a")[0][0]
    assert bytes(alphabet[character] for character in spelled) == "\u00e9\n \u65e5a".encode()


def test_vocabulary_counts_added_tokens_and_decides_the_width_of_ids(tokenizer: TextTokenizer) -> None:
    assert tokenizer.vocab_size == VOCAB_SIZE
    assert [id_dtype(size).name for size in (65_499, 65_500)] == ["uint16", "int32"]
