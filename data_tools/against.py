"""Two datasets of the same documents, as the arms of a study must be: proof that the text is the same, and how the tokens differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.cuts import CutCounts, batches, compare_cuts, spelled, spread, text_lengths, unit_of
from data_tools.indexed import IndexedReader
from data_tools.inspection import token_texts
from nemo_ext.common.dataset import DatasetInfo
from nemo_ext.common.errors import DataError
from nemo_ext.tokenizers import RaggedBatch, TextTokenizer, load
from nemo_ext.tokenizers.ragged import from_lengths

FIRST_DIFFERENCES = 3
CONTEXT_TOKENS = 8  # around the first difference of a document


class _Both(NamedTuple):
    """The same documents of two datasets."""

    split: str
    numbers: NDArray[np.int64]
    first: RaggedBatch
    second: RaggedBatch


def compare_datasets(
    baseline: DatasetInfo,
    dataset: DatasetInfo,
    most_documents: int | None = None,
    on_documents: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Compare a dataset with a baseline, on `most_documents` of every split, spread evenly, or on all of them (None).

    Returns JSON: tokens of both, and for equal tokenizers what share of the ids differs and where the first differences are.
    Raises DataError when the datasets do not hold the same documents in the same order and splits.
    """
    tokenizers = load(baseline.tokenizer_dir), load(dataset.tokenizer_dir)
    same_tokenizer = baseline.tokenizer_fingerprint == dataset.tokenizer_fingerprint
    _require_same_counts(baseline, dataset)
    counts, compared, differences, digest = CutCounts(), 0, list[dict[str, Any]](), hashlib.sha256()
    for both in _documents((baseline, dataset), tokenizers, most_documents, on_documents):
        digest.update(_same_text(both, (baseline, dataset), tokenizers))
        compared += len(both.numbers)
        if same_tokenizer:
            counts += compare_cuts(both.first, both.second, tokenizers[0])
            differences += _differences(both, tokenizers[0], FIRST_DIFFERENCES - len(differences))
    summary: dict[str, Any] = {
        "baseline": _name(baseline),
        "dataset": _name(dataset),
        "same_tokenizer": same_tokenizer,
        "compared": {
            "unit": unit_of(baseline),
            "count": compared,
            "of": sum(len(IndexedReader(split.prefix)) for split in baseline.splits.values()),
        },
        "text_sha256": digest.hexdigest(),
        "tokens_ratio": round(_tokens(dataset) / _tokens(baseline), 6),
        "splits": {name: {"tokens": [split.tokens, dataset.splits[name].tokens]} for name, split in baseline.splits.items()},
    }
    if same_tokenizer:
        summary |= {**counts.shares(), "first_differences": differences}
    return summary


def _name(info: DatasetInfo) -> dict[str, Any]:
    return {"path": str(info.path), "fingerprint": info.fingerprint, "plugin": info.manifest["plugin"], "seed": info.manifest["seed"]}


def _tokens(info: DatasetInfo) -> int:
    return sum(split.tokens for split in info.splits.values())


def _require_same_counts(first: DatasetInfo, second: DatasetInfo) -> None:
    names = ("documents", unit_of(first) + " encoded", "bytes")
    found = [
        {name: (split.documents, len(IndexedReader(split.prefix)), split.bytes) for name, split in info.splits.items()}
        for info in (first, second)
    ]
    if found[0] != found[1]:
        shown = [
            "; ".join(
                f"{name}: " + ", ".join(f"{count:,} {what}" for count, what in zip(counts, names, strict=True))
                for name, counts in s.items()
            )
            for s in found
        ]
        raise DataError(
            f"{first.path} ({shown[0]}) and {second.path} ({shown[1]}) do not hold the same documents. Arms of a study are compared "
            "on equal text: prepare both from the same inputs with the same options, but for tokenizer and plugin."
        )


def _documents(
    infos: tuple[DatasetInfo, DatasetInfo],
    tokenizers: tuple[TextTokenizer, TextTokenizer],
    most_documents: int | None,
    on_documents: Callable[[int, int], None],
) -> Iterator[_Both]:
    counts = {name: len(IndexedReader(split.prefix)) for name, split in infos[0].splits.items()}
    numbers = {name: spread(count, most_documents or count) for name, count in counts.items()}
    done, total = 0, sum(map(len, numbers.values()))
    for name, chosen in numbers.items():
        for batch_numbers, batch in batches(infos[0], tokenizers[0], name, chosen):
            parts = [other for _, other in batches(infos[1], tokenizers[1], name, batch_numbers)]
            lengths = np.concatenate([part.lengths for part in parts])
            yield _Both(name, batch_numbers, batch, from_lengths(np.concatenate([part.ids for part in parts]), lengths))
            done += len(batch_numbers)
            on_documents(done, total)


def _same_text(both: _Both, infos: tuple[DatasetInfo, DatasetInfo], tokenizers: tuple[TextTokenizer, TextTokenizer]) -> bytes:
    """The text of the documents. Raises DataError naming the first one whose text differs."""
    texts = [spelled(batch.ids, tokenizer).tobytes() for batch, tokenizer in zip(both[2:], tokenizers, strict=True)]
    lengths = [text_lengths(batch, tokenizer).tolist() for batch, tokenizer in zip(both[2:], tokenizers, strict=True)]
    if texts[0] == texts[1] and lengths[0] == lengths[1]:
        return texts[0]
    starts = [0, 0]
    for number, sizes in zip(both.numbers.tolist(), zip(*lengths, strict=True), strict=True):
        one, other = (text[start : start + size] for text, start, size in zip(texts, starts, sizes, strict=True))
        if one != other:
            raise DataError(
                f"Document {number} of split {both.split!r} is not the same text in {infos[0].path} ({one[:60]!r}, {len(one):,} bytes) and "
                f"{infos[1].path} ({other[:60]!r}, {len(other):,} bytes). Arms of a study are compared on equal text: prepare both from "
                "the same inputs."
            )
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    raise AssertionError("texts differ, but no document does")


def _differences(both: _Both, tokenizer: TextTokenizer, most: int) -> list[dict[str, Any]]:
    """The first documents that are cut in two ways, around the place where the ways part."""
    found: list[dict[str, Any]] = []
    for position, number in enumerate(both.numbers.tolist()):
        if len(found) >= most:
            break
        one, other = both.first.document(position), both.second.document(position)
        shared = min(len(one), len(other))
        parting = int(np.argmax(np.append(one[:shared] != other[:shared], True)))
        if parting < max(len(one), len(other)):
            window = slice(max(0, parting - CONTEXT_TOKENS // 2), parting + CONTEXT_TOKENS)
            pieces = [token_texts(tokenizer, ids[window]) for ids in (one, other)]
            found.append({"split": both.split, "document": number, "token": parting, "baseline": pieces[0], "dataset": pieces[1]})
    return found
