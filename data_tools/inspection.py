"""What is in a prepared dataset: counts, lengths, and samples as the model will see them. Reads by memory map, changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.indexed import IndexedReader
from nemo_ext.common.dataset import DatasetInfo, SplitInfo
from nemo_ext.common.errors import ConfigError, DataError, nearest
from nemo_ext.common.files import atomic_file
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
        "append_eod": info.append_eod,
        "splits": {name: summarize_split(split, info.append_eod) for name, split in info.splits.items()},
        "skipped": manifest["skipped"],
        "duplicate_documents": manifest["duplicate_documents"],
    }


def summarize_split(split: SplitInfo, append_eod: bool) -> dict[str, Any]:
    """Counts of one split. Lengths include the end-of-document token, `bytes_per_token` leaves it out (it has no bytes)."""
    lengths = lengths_of(split)
    text_tokens = split.tokens - (split.documents if append_eod else 0)
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


def lengths_of(split: SplitInfo) -> NDArray[np.int32]:
    """Tokens of each document of a split. Raises DataError when index and manifest disagree."""
    reader = IndexedReader(split.prefix)
    tokens = int(reader.lengths.sum(dtype=np.int64))
    if (len(reader), tokens) != (split.documents, split.tokens):
        raise DataError(
            f"{split.prefix}.idx has {len(reader)} documents with {tokens} tokens, the manifest {split.documents} with {split.tokens}. "
            "Prepare the dataset again."
        )
    return reader.lengths


def sample_documents(info: DatasetInfo, split: str, count: int) -> list[dict[str, Any]]:
    """`count` documents spread evenly over a split: number, tokens, and the beginning cut into token texts.

    Raises ConfigError for a split that the dataset does not have.
    """
    if split not in info.splits:
        raise ConfigError(f"{info.path} has no split {split!r}.{nearest(split, info.splits)}")
    reader, tokenizer = IndexedReader(info.splits[split].prefix), load(info.tokenizer_dir)
    samples = []
    for number in np.unique(np.linspace(0, len(reader) - 1, num=min(count, len(reader)), dtype=np.int64)).tolist():
        ids = reader.document(number)
        samples.append({"split": split, "document": number, "tokens": len(ids), "pieces": token_texts(tokenizer, ids[:SAMPLE_TOKENS])})
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


def plot_lengths(info: DatasetInfo, path: Path) -> None:
    """Histogram of document lengths of every split, as .png, .svg or .pdf by the name of `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise ConfigError(f"--plot {path}: expected a name that ends in .png, .svg or .pdf.")
    lengths = {name: lengths_of(split) for name, split in info.splits.items()}
    shortest = min(max(1, int(values.min())) for values in lengths.values())
    longest = max(int(values.max()) for values in lengths.values())
    edges = np.geomspace(shortest, max(shortest, longest) + 1, num=50)  # lengths spread over orders of magnitude
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, values in lengths.items():
        label, share = f"{name} ({len(values):,} documents)", np.full(len(values), 1 / len(values))  # splits differ in size
        axes.hist(np.maximum(values, 1), bins=edges.tolist(), weights=share, histtype="step", linewidth=1.5, label=label)
    axes.set(xscale="log", xlabel="tokens per document", ylabel="share of the split's documents", title=str(info.path))
    axes.legend()
    with atomic_file(path, "wb") as handle:
        figure.savefig(handle, format=kind, dpi=150)
