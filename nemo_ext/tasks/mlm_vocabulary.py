"""What masking has to know of a tokenizer: its mask token, the tokens around a text, which tokens are real, where words begin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nemo_ext.common.errors import ConfigError
from nemo_ext.tokenizers import load
from nemo_ext.tokenizers.spelling import UNUSED_TOKEN, Spelling

LONGEST_WORD = 16  # tokens; text without spaces, and long runs of anything, would be one word else
SPACES = np.frombuffer(b" \t\n\r\x0b\x0c", dtype=np.uint8)
CJK_LEAD_BYTES = (0xE3, 0xE9)  # UTF-8 of U+3000 to U+9FFF, kana and ideographs, which are written without spaces


@dataclass(frozen=True)
class MaskingVocabulary:
    """A tokenizer as masking sees it. `prefix` and `suffix` are the ids that its template puts around one text.

    maskable: bool [vocabulary], false for special tokens.
    replacements: int64 [real tokens], what a random token is drawn from: neither special, unused nor without a token.
    """

    folder: Path
    mask_id: int
    pad_id: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    maskable: NDArray[np.bool_]
    replacements: NDArray[np.int64]

    @cached_property
    def _word_tables(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return word_tables(load(self.folder).spelling)

    def word_starts(self, ids: NDArray[np.int64], piece_starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Bool [tokens]: where words of `ids` [tokens] begin; a piece begins one, and so do special tokens and what follows them."""
        begins, ends = self._word_tables
        special = ~self.maskable[ids]
        starts = begins[ids] | special
        starts[1:] |= ends[ids[:-1]] | special[:-1]
        starts[piece_starts] = True
        places = np.arange(len(ids))
        begun = np.maximum.accumulate(np.where(starts, places, 0))
        return starts | ((places - begun) % LONGEST_WORD == 0)


def masking_vocabulary(folder: Path) -> MaskingVocabulary:
    """Read a tokenizer folder. Raises ConfigError when it has no mask token."""
    opened = load(folder)
    if "mask_token" not in opened.special_ids or not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            f"Masking needs a tokenizer with a mask token in its vocabulary, but that of {folder} has none (special tokens: "
            f"{', '.join(opened.specials.values()) or 'none'}). Prepare the dataset with an encoder's tokenizer, or add a token and "
            "name it mask_token in tokenizer_config.json."
        )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    special = set(opened.special_ids.values())
    special |= {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    maskable = np.ones(opened.vocab_size, dtype=bool)
    maskable[sorted(special)] = False
    real = [number for text, number in vocabulary.items() if number not in special and not UNUSED_TOKEN.fullmatch(text)]
    prefix, suffix = template(tokenizer)
    return MaskingVocabulary(
        folder=folder,
        mask_id=opened.special_ids["mask_token"],
        pad_id=opened.special_ids.get("pad_token", opened.eod_id),
        prefix=prefix,
        suffix=suffix,
        maskable=maskable,
        replacements=np.array(sorted(real), dtype=np.int64),
    )


def template(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that the tokenizer puts before and after one text: BERT's [CLS] and [SEP]; nothing when it has no template."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    added = np.array(tokenizer.encode("a", add_special_tokens=True).special_tokens_mask, dtype=bool)
    ids = tokenizer.encode("a", add_special_tokens=True).ids
    if not added.any():
        return (), ()
    text = np.flatnonzero(~added)
    return tuple(ids[: text[0]]), tuple(ids[text[-1] + 1 :])


def word_tables(spelling: Spelling) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Bool [vocabulary] each: whether a token begins a word, and whether whatever follows it does.

    A word is a run of letters and digits, with the space before it; every other character stands for itself, and so do kana and
    ideographs. Bytes above 127 count as letters. For WordPiece this is what has no ## before it.
    """
    lengths = np.diff(spelling.offsets)
    spelled = lengths > 0
    first = spelling.data[np.where(spelled, spelling.offsets[:-1], 0)]
    last = spelling.data[np.where(spelled, spelling.offsets[1:] - 1, 0)]
    ideograph = (first >= CJK_LEAD_BYTES[0]) & (first <= CJK_LEAD_BYTES[1])
    return spelled & (~_is_letter(first) | ideograph), spelled & ~_is_letter(last) & ~np.isin(last, SPACES)


def _is_letter(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    upper = values & 0xDF  # ASCII letters without their case
    return (values >= 0x80) | ((upper >= ord("A")) & (upper <= ord("Z"))) | ((values >= ord("0")) & (values <= ord("9")))
