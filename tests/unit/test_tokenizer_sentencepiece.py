"""sentencepiece models: the ids are sentencepiece's own, tokens spell their bytes, and pieces merge as sentencepiece merges them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.common.errors import DataError
from nemo_ext.tokenizers import load
from nemo_ext.tokenizers.sentencepiece_model import SentencePieceTokenizer
from tests.support.small_text import TEXTS
from tests.support.tokenizer_kinds import sentencepiece_tokenizer

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    opened = sentencepiece_tokenizer(tmp_path_factory.mktemp("tokenizer") / "model", request.param)
    assert isinstance(opened, SentencePieceTokenizer)
    return opened


@given(texts=st.lists(TEXT, max_size=4))
def test_ids_are_those_of_sentencepiece(tokenizer: SentencePieceTokenizer, texts: list[str]) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.model_path))
    texts = [*texts, TEXTS[3], "a </s> <number> \x00 b"]
    batch = tokenizer.encode_batch(texts)
    assert [batch.document(number).tolist() for number in range(len(texts))] == [reference.encode(text) for text in texts]


def test_the_file_says_what_sentencepiece_says(tokenizer: SentencePieceTokenizer) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.model_path))
    assert tokenizer.vocab_size == reference.get_piece_size()
    for number in range(tokenizer.vocab_size):
        assert tokenizer.token_text(number) == reference.id_to_piece(number)
        strange = reference.is_byte(number) or reference.is_control(number) or reference.is_unknown(number) or reference.is_unused(number)
        assert tokenizer.spelling.ordinary[number] == (not strange and tokenizer.token_text(number) != "<number>")
    assert (tokenizer.eod_id, tokenizer.bos_id) == (reference.eos_id(), reference.bos_id())


def test_tokens_spell_the_text_that_sentencepiece_normalized(tokenizer: SentencePieceTokenizer) -> None:
    for text in (*TEXTS[:20], "日本語 at é", "  spaces   here "):
        normalized = " ".join(text.split()).encode()
        assert tokenizer.decode_bytes(tokenizer.encode_batch([text]).ids) == normalized


def test_pieces_merge_as_sentencepiece_merges_them(tmp_path: Path) -> None:
    from nemo_ext.tokenizers.piece_encoder import encode_piece, make_encoder

    tokenizer = sentencepiece_tokenizer(tmp_path / "model")
    encoder = make_encoder(tokenizer.spelling, tokenizer.piece_rules, 4096)
    for text in TEXTS:
        known = [word for word in text.split() if tokenizer.spelling.ordinary[tokenizer.encode_batch([word]).ids].all()]
        words = " ".join(known)
        assert len(known) > 5
        data, out = np.frombuffer(f" {words}".encode(), dtype=np.uint8), np.empty(4096, dtype=np.int32)
        assert out[: encode_piece(encoder, data, 0, len(data), out, 0)].tolist() == tokenizer.encode_batch([words]).ids.tolist()


def test_a_copied_model_opens_from_its_folder_and_is_the_same(tokenizer: SentencePieceTokenizer, tmp_path: Path) -> None:
    assert tokenizer.copy(tmp_path / "copy") == ["tokenizer.model"]
    again = load(tmp_path / "copy")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode_batch(TEXTS[:3]).ids.tolist() == tokenizer.encode_batch(TEXTS[:3]).ids.tolist()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x0a\xff\xff"])
def test_files_that_are_no_models_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer.model is not a sentencepiece model, or damaged"):
        load(tmp_path)
