"""How a tokenizer cuts a piece of text, as arrays for `piece_encoder`: its pre-tokens and its merges.

BPE merges by rank. Tokenizers without merges (WordPiece, unigram) are served by the longest tokens from left to right: for WordPiece
that is its own rule, for unigram models a stand-in for their search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nemo_ext.tokenizers.compiled import compiled
from nemo_ext.tokenizers.merging import merge_table
from nemo_ext.tokenizers.pretokens import NO_CUTS, PretokenRule, pretoken_rule
from nemo_ext.tokenizers.spelling import Spelling, find
from nemo_ext.tokenizers.token_bytes import decoder_steps


class PieceRules(NamedTuple):
    """`rule` [3] is a pattern of pre-tokens, the digits it keeps together, and 1 when a pre-token that is a token is taken as it is.

    `joinable` [256, 256] says which bytes stand side by side in some token, for nothing merges over others. `byte_ids` [256] are the
    tokens that merging starts from, -1 where it starts from characters.

    `merge_keys` is a hash table of pairs (left id + 1 in the upper half, right id in the lower), 0 where empty; `merges` has their rank in
    the upper half and the merged id in the lower. Both are empty without merges.
    """

    rule: NDArray[np.int64]
    joinable: NDArray[np.bool_]
    merge_keys: NDArray[np.uint64]
    merges: NDArray[np.uint64]
    byte_ids: NDArray[np.int64]


def rules_of_json(parsed: Mapping[str, Any], vocabulary: Mapping[str, int], spelling: Spelling) -> PieceRules:
    """The rules of a tokenizer.json. Raises ConfigError for a pre-tokenizer that is not known."""
    model = parsed["model"]
    rule = pretoken_rule(parsed.get("pre_tokenizer"))
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model.get("merges", ()))
    merges = [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in pairs]
    triples = np.array(merges, dtype=np.uint64).reshape(-1, 3)
    ranks = np.arange(len(triples), dtype=np.uint64)
    byte_level = any(step["type"] == "ByteLevel" for step in decoder_steps(parsed.get("decoder")))
    return make_rules(spelling, rule, triples, ranks, bool(model.get("ignore_merges")), byte_level)


def make_rules(
    spelling: Spelling, rule: PretokenRule, merges: NDArray[np.uint64], ranks: NDArray[np.uint64], whole: bool, starts_from_bytes: bool
) -> PieceRules:
    """The arrays for `merges` [merges, 3], (left, right, merged) ids, and their ranks; merges of equal rank go from left to right."""
    joinable = np.full((256, 256), whole and rule.pattern != NO_CUTS)
    byte_ids = np.full(256, -1, dtype=np.int64)
    if starts_from_bytes:
        byte_ids[:] = [find(spelling, np.array([byte], dtype=np.uint8), 0, 1) for byte in range(256)]
    mark_joinable(spelling, joinable)
    return PieceRules(np.array([*rule, whole], dtype=np.int64), joinable, *merge_table(merges, ranks), byte_ids)


@compiled
def mark_joinable(spelling: Spelling, joinable: NDArray[np.bool_]) -> None:
    """Note which bytes stand side by side in ordinary tokens."""
    for token in range(len(spelling.ordinary)):
        if spelling.ordinary[token]:
            for position in range(spelling.offsets[token] + 1, spelling.offsets[token + 1]):
                joinable[spelling.data[position - 1], spelling.data[position]] = True
