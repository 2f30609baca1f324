"""Patok: windows of tokens joined and cut anew around affixes, then random splits; the study's morphology-aware algorithm, made correct.

For a document of n tokens, floor(contract_prop x n) times: draw a window of 2 to 4 neighbouring tokens; one that holds an affix as a
token is refused with probability affix_awareness (same_start_awareness when two affixes begin at the same place in it) and drawn again.
Join the window. If it contains affixes, with probability affix_awareness one of them, chosen uniformly, is cut out of it. Each of the up
to three pieces is cut before and after its first reduplication, and every piece encoded as the tokenizer would encode it alone. Last,
floor(expand_prop x tokens) attempts to split as StochasTok makes them, at tokens that are no affixes.

Affixes match by position: a prefix at the start of a word (the space before it is cut with it), an infix after the first consonant, a
suffix at the end, in any case, and never the whole word. A reduplication is a consonant and a vowel twice in a row.

With position_aware=false surface forms match anywhere as in the study's code: prefixes with or without a space before and a capital,
suffixes with or without a space after; forms with a space are preferred; any two characters twice in a row are a reduplication. What
differs from that code on purpose, in both ways of matching: windows neither cut characters nor hold control, added or byte-fallback
tokens; when 100 draws find no window or no token to split, the attempt is spent (the study took the first tokens, or never ended).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import List, Optional  # noqa: UP035  OmegaConf reads these

import numpy as np
from numpy.typing import NDArray

from nemo_ext.common.errors import ConfigError
from nemo_ext.config.schema import setting
from nemo_ext.tokenizers.affix_hits import find_hits, make_hits
from nemo_ext.tokenizers.affix_lists import MARKS, Affixes, blind_forms, positional_forms, read_affixes
from nemo_ext.tokenizers.array_cache import cached
from nemo_ext.tokenizers.compiled import compiled
from nemo_ext.tokenizers.patok_windows import COUNTS, Law, Work, contract, expand
from nemo_ext.tokenizers.piece_encoder import Encoder, make_encoder
from nemo_ext.tokenizers.piece_rules import PieceRules
from nemo_ext.tokenizers.ragged import RaggedBatch
from nemo_ext.tokenizers.random_stream import restart, seed_bits
from nemo_ext.tokenizers.split_table import SplitTable, build_split_table
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer
from nemo_ext.tokenizers.token_list import Document, fill, write_out


@dataclass
class PatokSettings:
    """How much to join and split, and which affixes to keep whole. The defaults are the study's."""

    contract_prop: float = setting(0.9, "windows to join and cut anew, as a share of a document's tokens", minimum=0)
    expand_prop: float = setting(0.1, "attempts to split afterwards, as a share of the tokens then", minimum=0)
    affix_awareness: float = setting(0.95, "probability to leave a window with an affix token alone, and to cut out an affix", minimum=0)
    same_start_awareness: float = setting(0.75, "the former probability where two affixes begin at the same place", minimum=0)
    num_toks_to_cont: List[int] = setting([2, 3, 4], "tokens of a window")  # noqa: UP006, RUF009
    contract_prob: List[float] = setting([0.35, 0.35, 0.3], "probability of each of num_toks_to_cont")  # noqa: UP006, RUF009
    language: str = setting("filipino", "whose affixes, by the name of an affix list of this package")
    affixes: Optional[str] = setting(None, "affix list to use instead: a YAML file with prefixes, infixes and suffixes")  # noqa: UP045
    position_aware: bool = setting(True, "match affixes by their position in a word; false: anywhere, as the study's code does")


class Patok:
    """Cuts text anew around affixes. `counts`: see `patok_windows.COUNTS`, and `affix:mag-` for how often each affix was cut out."""

    name = "patok"
    settings_type = PatokSettings

    def __init__(self, settings: PatokSettings, tokenizer: TextTokenizer) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._law = make_law(settings)
        affixes = read_affixes(settings.language, settings.affixes)
        self._affix_names = [f"affix:{MARKS[kind].format(affix)}" for kind, affix in affixes]
        self._affixes = positional_forms(affixes) if settings.position_aware else blind_forms(affixes)
        self._spelling, fingerprint = tokenizer.spelling, tokenizer.fingerprint
        self._table = cached(SplitTable, fingerprint, lambda: build_split_table(self._spelling))
        self._rules = cached(PieceRules, fingerprint, lambda: tokenizer.piece_rules)
        lengths = np.diff(self._spelling.offsets).astype(np.int32)
        self._sizes = np.where(self._spelling.ordinary, lengths, -1 - lengths)
        self._encoder = make_encoder(self._spelling, self._rules, int(lengths.max()) * max(settings.num_toks_to_cont))
        self._hits_a_byte = 0.25

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        """The batch cut anew."""
        ids = batch.ids.astype(np.int32, copy=False)
        places = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(self._spelling.offsets)[ids])])[batch.offsets]
        text_bytes = np.diff(places)
        longest, rooms = int(text_bytes.max(initial=0)), text_bytes + batch.lengths  # tokens have bytes, or are left as they are
        text, tokens = np.empty(longest, dtype=np.uint8), np.empty((int(rooms.max(initial=0)), 6), dtype=np.int32)
        counts = np.zeros(len(COUNTS) + len(self._affix_names), dtype=np.int64)
        window = np.empty(max(self.settings.num_toks_to_cont), dtype=np.int32)
        work = Work(np.zeros(1, dtype=np.uint64), counts, window, np.empty(len(self._encoder.ranks), dtype=np.int32))
        after, offsets, done = np.empty(int(rooms.sum()), dtype=np.int32), np.zeros_like(batch.offsets), 0
        while done < batch.documents:
            document = Document(text, make_hits(longest, int(self._hits_a_byte * longest) + 16), tokens, np.zeros(2, np.int64), self._sizes)
            given = ids, batch.offsets, document_ids, seed_bits(seed)
            done = cut_batch(done, *given, self._law, self._affixes, self._encoder, self._table, document, work, after, offsets)
            self._hits_a_byte *= 1 if done == batch.documents else 2
        self.counts.update(dict(zip(COUNTS, counts.tolist(), strict=False)))
        affixes = zip(self._affix_names, counts[len(COUNTS) :].tolist(), strict=True)
        self.counts.update({name: count for name, count in affixes if count})
        return RaggedBatch(after[: offsets[-1]].copy(), offsets)


def make_law(settings: PatokSettings) -> Law:
    """The settings for compiled code. Raises ConfigError for probabilities that are none and windows that have no size."""
    for name in ("affix_awareness", "same_start_awareness"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ConfigError(f"patok.{name}={getattr(settings, name)} is no probability. Expected a number from 0 to 1.")
    sizes, probabilities = settings.num_toks_to_cont, settings.contract_prob
    if not sizes or min(sizes) < 1 or len(sizes) != len(probabilities):
        raise ConfigError(
            f"patok.num_toks_to_cont={sizes} and patok.contract_prob={probabilities} do not fit: expected numbers of tokens from 1 on, "
            "and as many probabilities."
        )
    if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1):
        raise ConfigError(f"patok.contract_prob={probabilities} sums to {sum(probabilities):g}. Expected probabilities that sum to 1.")
    return Law(
        settings.contract_prop,
        settings.expand_prop,
        settings.affix_awareness,
        settings.same_start_awareness,
        np.array(sizes, dtype=np.int64),
        np.cumsum(probabilities),
        not settings.position_aware,
    )


@compiled
def cut_batch(
    first: int,
    before: NDArray[np.int32],
    offsets: NDArray[np.int64],
    document_ids: NDArray[np.uint64],
    seed: np.uint64,
    law: Law,
    affixes: Affixes,
    encoder: Encoder,
    table: SplitTable,
    room: Document,
    work: Work,
    after: NDArray[np.int32],
    after_offsets: NDArray[np.int64],
) -> np.int64:
    """Write the documents from `first` on into `after` and their limits into `after_offsets`.

    Returns the first document that is left to do, for want of room for affix hits, or the number of documents.
    """
    for number in range(first, len(document_ids)):
        ids, text_bytes = before[offsets[number] : offsets[number + 1]], 0
        for token in ids:
            for position in range(encoder.offsets[token], encoder.offsets[token + 1]):
                room.text[text_bytes] = encoder.data[position]
                text_bytes += 1
        document = Document(room.text[:text_bytes], room.hits, room.tokens, room.ends, room.sizes)
        if not find_hits(document.text, affixes, encoder.classes, law.blind, document.hits):
            return np.int64(number)
        fill(document, ids)
        restart(work.state, seed, document_ids[number])
        contract(document, law, encoder, work)
        expand(document, law, table, work)
        after_offsets[number + 1] = write_out(document, after, after_offsets[number])
    return np.int64(len(document_ids))
