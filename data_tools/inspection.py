"""What is in a prepared dataset: counts, lengths, and samples as the model will see them. Reads by memory map, changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.cuts import spread
from data_tools.indexed import IndexedReader
from nemo_ext.common.dataset import DatasetInfo, SplitInfo
from nemo_ext.common.errors import ConfigError, DataError, nearest
from nemo_ext.tokenizers import TextTokenizer, load

QUANTILES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
SAMPLE_TOKENS = 64
BOUNDARY = "\u2502"
VISIBLE = str.maketrans({"\n": "\u23ce", "\t": "\u21e5", "\r": "\u240d"})


def summarize(info: DatasetInfo) -> dict[str, Any]:
    """Everything about a dataset that fits on one screen, as JSON."""
    manifest = info.manifest
    return {
        "path": str(info.path),
        "fingerprint": info.fingerprint,
        "tokenizer": manifest["tokenizer"],
        "plugin": manifest["plugin"],
        "seed": manifest["seed"],
        "append_eod": info.append_eod,
        "splits": {name: summarize_split(split, control_tokens(info)) for name, split in info.splits.items()},
        "skipped": manifest["skipped"],
        "duplicate_documents": manifest["duplicate_documents"],
    }


def control_tokens(info: DatasetInfo) -> int:
    """Control tokens that preparation added to every document."""
    return int(info.append_eod) + int(info.manifest.get("prepend_bos", False))


def summarize_split(split: SplitInfo, added_tokens: int) -> dict[str, Any]:
    """Counts of one split. Lengths include the `added_tokens` of every document, `bytes_per_token` leaves them out (they have no bytes)."""
    lengths = lengths_of(split)
    text_tokens = split.tokens - added_tokens * split.documents
    quantiles = np.quantile(lengths, list(QUANTILES.values()), method="nearest")
    return {
        "documents": split.documents,
        "tokens": split.tokens,
        "bytes": split.bytes,
        "bytes_per_token": round(split.bytes / text_tokens, 4) if text_tokens else None,
        "tokens_per_document": {
            "mean": round(float(lengths.mean()), 1),
            **{name: int(value) for name, value in zip(QUANTILES, quantiles, strict=True)},
        },
    }


def lengths_of(split: SplitInfo) -> NDArray[np.int64]:
    """Tokens of each document of a split. Raises DataError when index and manifest disagree."""
    lengths = IndexedReader(split.prefix).document_lengths()
    if (len(lengths), int(lengths.sum())) != (split.documents, split.tokens):
        raise DataError(
            f"{split.prefix}.idx has {len(lengths)} documents with {lengths.sum()} tokens, the manifest {split.documents} with "
            f"{split.tokens}. Prepare the dataset again."
        )
    return lengths


def sample_documents(info: DatasetInfo, split: str, count: int) -> list[dict[str, Any]]:
    """`count` documents, or sentences if those were encoded one by one, spread evenly over a split: number, tokens, and the beginning
    cut into token texts.

    Of a dataset with a plugin, `vanilla_pieces` has the same beginning as the tokenizer alone cuts it (None where it cannot be told).
    Raises ConfigError for a split that the dataset does not have.
    """
    if split not in info.splits:
        raise ConfigError(f"{info.path} has no split {split!r}.{nearest(split, info.splits)}")
    if has_treatment(info):
        return _treated_samples(info, split, count)
    reader, tokenizer = IndexedReader(info.splits[split].prefix), load(info.tokenizer_dir)
    samples = []
    for number in spread(len(reader), count).tolist():
        ids = reader.sequence(number)
        samples.append({"split": split, "document": number, "tokens": len(ids), "pieces": token_texts(tokenizer, ids[:SAMPLE_TOKENS])})
    return samples


def has_treatment(info: DatasetInfo) -> bool:
    """Whether a plugin was to change the tokens of a dataset."""
    return info.manifest["plugin"]["name"] != "vanilla"


def _treated_samples(info: DatasetInfo, split: str, count: int) -> list[dict[str, Any]]:
    from data_tools.treatment import side_by_side  # brings numba, which datasets without a treatment do without

    tokenizer, samples = load(info.tokenizer_dir), []
    for sample in side_by_side(info, split, count, SAMPLE_TOKENS):
        before = sample["before"]
        samples.append(
            {
                "split": split,
                "document": sample["document"],
                "tokens": sample["tokens"],
                "pieces": token_texts(tokenizer, sample["after"]),
                "vanilla_pieces": token_texts(tokenizer, before) if before is not None else None,
            }
        )
    return samples


def token_texts(tokenizer: TextTokenizer, ids: NDArray[Any]) -> list[str]:
    """The text of every token; bytes that are part of a character show as \\xNN. Tokenizers that do not spell text show their own."""
    try:
        table = tokenizer.token_bytes
    except DataError:
        return [tokenizer.token_text(token_id) for token_id in ids.tolist()]
    return [table[token_id].decode("utf-8", errors="backslashreplace") for token_id in ids.tolist()]


def with_boundaries(pieces: list[str]) -> str:
    """Token texts in one line with visible boundaries and line ends."""
    return BOUNDARY.join(pieces).translate(VISIBLE)
