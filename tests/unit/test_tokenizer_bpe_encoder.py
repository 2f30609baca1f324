"""The compiled encoder gives the ids of the tokenizer, for Gemma's kind as trained here and as converted from sentencepiece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from nemo_ext.tokenizers import TextTokenizer, load, train
from nemo_ext.tokenizers.bpe_encoder import BpeEncoder, bpe_encoder
from nemo_ext.tokenizers.fast_encoder import fast_encoder
from nemo_ext.tokenizers.merging import HEAP_ENTRIES, merge_few, merge_many, merge_table
from tests.support.small_text import TEXTS

SYMBOLS = ["\n", "\n\n", "\n\n\n", "\u2581\u2581", "<table>", "</table>", "<tab"]
PARTS = [*SYMBOLS, *" \n\t<>a\0\u2581\U0001f600", "  ", "   mag", "</", "<table", "<eos>", "<pad>\n", "na\u00efve", "\u65e5\u672c", "ng"]
TEXT = st.lists(st.sampled_from(PARTS) | st.sampled_from(TEXTS) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)
SOLID = st.text(st.sampled_from("aeimngstulbo,."), min_size=60, max_size=400)  # nowhere to cut
Pair = tuple[TextTokenizer, BpeEncoder]


def trained(folder: Path) -> Path:
    train([text.replace("\u65e5", "") for text in TEXTS], 560, folder, kind="gemma")
    return folder


def converted(folder: Path) -> Path:
    """As transformers converts Gemma's sentencepiece model (convert_slow_tokenizer.py, GemmaConverter and generate_merges): all pairs
    that make a token merge, in the order of the tokens; symbols of its own are looked for in the text first."""
    import sentencepiece

    folder.mkdir()
    controls = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, *("   indented,  twice" * 4 for _ in range(30))]),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=520,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.99,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=SYMBOLS,
        add_dummy_prefix=False,
        hard_vocab_limit=False,
        minloglevel=2,
        **controls,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocabulary = {model.id_to_piece(number): number for number in range(len(model))}
    normal = [piece for piece, number in vocabulary.items() if piece in SYMBOLS or not (model.is_control(number) or model.is_byte(number))]
    merges = [(piece[:cut], piece[cut:]) for piece in normal for cut in range(1, len(piece))]
    merges = [pair for pair in merges if vocabulary.keys() >= {*pair}]
    bpe = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>"])
    tokenizer.add_tokens([AddedToken(symbol, normalized=False) for symbol in SYMBOLS])
    tokenizer.save(str(folder / "tokenizer.json"))
    return with_end(folder, "<eos>")


def with_end(folder: Path, eos_token: str) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos_token}))
    return folder


def hiding(folder: Path) -> Path:
    """Control tokens that hide others, in which nothing else is looked for."""
    trained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<\n", normalized=False), AddedToken("a", normalized=True)])
    tokenizer.add_tokens([AddedToken(content, normalized=False) for content in ("\n", "\n\n", "<table>", "ng")])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {"trained": trained, "converted": converted, "hiding": hiding}


@pytest.fixture(scope="module", params=MAKERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    tokenizer = load(MAKERS[request.param](tmp_path_factory.mktemp("bpe") / request.param))
    encoder = fast_encoder(tokenizer)
    assert isinstance(encoder, BpeEncoder)
    return tokenizer, encoder


@given(texts=st.lists(TEXT | SOLID, max_size=6))
@settings(deadline=None, max_examples=300)
def test_ids_are_those_of_the_tokenizer(pair: Pair, texts: list[str]) -> None:
    expected, found = pair[0].encode_batch(texts), pair[1].encode_batch(texts)
    assert found.offsets.tolist() == expected.offsets.tolist()
    assert found.ids.tolist() == expected.ids.tolist() and found.ids.dtype == expected.ids.dtype


def test_long_text_without_a_place_to_cut_is_encoded_too(pair: Pair) -> None:
    for text in (" " * 200_000, "magtulungan" * 20_000, "\n" * 50_000, "\u65e5\u672c" * 20_000):
        assert np.array_equal(pair[1].encode_batch([text]).ids, pair[0].encode_batch([text]).ids)


def test_tokenizers_come_with_several_merges_for_a_token_and_symbols_of_their_own(tmp_path: Path) -> None:
    parsed = json.loads((converted(tmp_path / "converted") / "tokenizer.json").read_text())
    made = ["".join(merge) for merge in parsed["model"]["merges"]]
    assert len(set(made)) < len(made) and parsed["pre_tokenizer"]["type"] == "Split"
    assert {token["content"] for token in parsed["added_tokens"] if not token["special"]} >= set(SYMBOLS)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=20),
    st.lists(st.integers(0, 5), min_size=1, max_size=200),
)
@settings(deadline=None)
def test_the_heap_merges_as_the_scan_does(merges: list[tuple[int, int, int]], symbols: list[int]) -> None:
    seen = {merge[:2]: (*merge[:2], 6 + rank) for rank, merge in enumerate(merges)}
    seen |= {(merge[0], 6 + rank): (merge[0], 6 + rank, 40 + rank) for rank, merge in enumerate(merges)}
    triples = np.array(list(seen.values()), dtype=np.uint64).reshape(-1, 3)
    table = merge_table(triples, np.arange(len(triples), dtype=np.uint64) // 2)  # some ranks are equal
    few, many, count = np.array(symbols, dtype=np.int32), np.array(symbols, dtype=np.int32), len(symbols)
    if not len(triples):
        return
    left = merge_few(*table, few, 0, count, np.empty(count, dtype=np.uint64))
    links = np.empty((2, count), dtype=np.int32)
    assert merge_many(*table, many, count, np.empty(HEAP_ENTRIES * count, dtype=np.uint64), *links) == left
    assert many[:left].tolist() == few[:left].tolist()


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> TextTokenizer:
    file = trained(folder) / "tokenizer.json"
    parsed = json.loads(file.read_text())
    change(parsed)
    file.write_text(json.dumps(parsed))
    return load(folder)


def added(content: str, **entries: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": 560, "content": content, **flags, **entries}


STRANGERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "normalizer": lambda parsed: parsed.update(normalizer={"type": "NFC"}),
    "pre-tokenizer": lambda parsed: parsed.update(pre_tokenizer={"type": "Whitespace"}),
    "whole words": lambda parsed: parsed["model"].update(ignore_merges=True),
    "normalized": lambda parsed: parsed["added_tokens"].append(added("<tool>", normalized=True)),
    "strips": lambda parsed: parsed["added_tokens"].append(added("<tool>", lstrip=True)),
    "a byte missing": lambda parsed: parsed["model"]["vocab"].update({"<0xFF>x": parsed["model"]["vocab"].pop("<0xFF>")}),
    "a merge twice": lambda parsed: parsed["model"]["merges"].append(parsed["model"]["merges"][0]),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_tokenizer_that_is_not_understood_keeps_its_own_encoder(name: str, tmp_path: Path) -> None:
    assert fast_encoder(changed(tmp_path / "stranger", STRANGERS[name])) is None


def test_rules_that_do_not_give_the_ids_of_the_tokenizer_are_not_used(tmp_path: Path) -> None:
    tokenizer = load(trained(tmp_path / "right"))
    assert bpe_encoder(tokenizer) is not None
    other = changed(tmp_path / "wrong", lambda parsed: parsed["model"]["merges"].reverse())
    other.parsed = tokenizer.parsed
    assert bpe_encoder(other) is None
