"""What a Hugging Face file may hold besides the weights of the model: buffers, copies of tied weights, heads that are not trained.

Nothing else may be there. Buffers follow from config.json, a copy must equal its original, and a head is left out by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod

from nemo_ext.common.errors import ConversionError
from nemo_ext.convert.reader import SafetensorsReader

# Buffers that old transformers saved: rotary frequencies, GPT-2's causal masks, BERT's 0, 1, 2 and so on.
DERIVED_SUFFIXES = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "embeddings.position_ids")
# Copies of tied tensors -> how the names of their originals end.
COPIES = {
    "lm_head.weight": ("embed_tokens.weight", "wte.weight"),
    "decoder.weight": ("model.embeddings.tok_embeddings.weight",),
    "cls.predictions.decoder.weight": ("bert.embeddings.word_embeddings.weight",),
    "cls.predictions.decoder.bias": ("cls.predictions.bias",),
}
# Parts that published checkpoints have although config.json's architecture has them not, and that transformers ignores, too.
UNTRAINED_PARTS = {"bert.pooler.": "pooler", "cls.seq_relationship.": "next-sentence head"}
OLD_NORM_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # BERT's, from TensorFlow
_COMPARED_BYTES = 32 * 2**20


def rename_old_norms(reader: SafetensorsReader) -> None:
    """Know norms by the names that transformers gives them when it reads such a file."""
    for old, new in OLD_NORM_NAMES.items():
        reader.tensors = {name.removesuffix(old) + new if name.endswith(old) else name: stored for name, stored in reader.tensors.items()}


def leave_out_untrained(reader: SafetensorsReader, expected: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Forget heads that the model does not have; returns how many tensors of which."""
    left_out: Counter[str] = Counter()
    for name in list(reader.tensors):
        part = next((part for prefix, part in UNTRAINED_PARTS.items() if name.startswith(prefix)), None)
        if part is not None and name not in expected:
            left_out[part] += 1
            del reader.tensors[name]
    return dict(left_out)


def allowed_surplus(reader: SafetensorsReader, expected: Mapping[str, Sequence[int]]) -> list[str]:
    """Names of buffers and of copies of tied weights. Raises ConversionError for a copy with values of its own."""
    derived = [name for name in reader.tensors if name.endswith(DERIVED_SUFFIXES)]
    return [*derived, *_copies(reader, expected)]


def _copies(reader: SafetensorsReader, expected: Mapping[str, Sequence[int]]) -> Iterator[str]:
    for copy, endings in COPIES.items():
        original = next((name for name in expected if name.endswith(endings)), None)
        if copy not in reader.tensors or copy in expected or original not in reader.tensors:
            continue
        if reader.stored(copy).shape != reader.stored(original).shape:
            continue
        _require_equal(reader, copy, original)
        yield copy


def _require_equal(reader: SafetensorsReader, copy: str, original: str) -> None:
    rows, *tail = reader.stored(copy).shape
    step = max(1, _COMPARED_BYTES // (4 * prod(tail)))
    for start in range(0, rows, step):
        span = (start, min(start + step, rows))
        if not reader.read(copy, span).equal(reader.read(original, span)):
            raise ConversionError(
                f"{reader.source}: config.json ties {copy} to {original}, but the file holds different values for them "
                f"(rows {span[0]} to {span[1] - 1}). Set tie_word_embeddings to false in config.json, or remove {copy}."
            )
