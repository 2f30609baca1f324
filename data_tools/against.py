"""Two datasets of the same documents, as the arms of a study must be: proof that the text is the same, and how the tokens differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.cuts import CutCounts, batches, compare_cuts, spelled, spread, text_lengths
from data_tools.inspection import token_texts
from nemo_ext.common.dataset import DatasetInfo
from nemo_ext.common.errors import DataError
from nemo_ext.tokenizers import RaggedBatch, TextTokenizer, load

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
    counts, differences, digest = CutCounts(), list[dict[str, Any]](), hashlib.sha256()
    for both in _documents(baseline, dataset, most_documents, on_documents):
        digest.update(_same_text(both, (baseline, dataset), tokenizers))
        if same_tokenizer:
            counts += compare_cuts(both.first, both.second, tokenizers[0])
            differences += _differences(both, tokenizers[0], FIRST_DIFFERENCES - len(differences))
    summary: dict[str, Any] = {
        "baseline": _name(baseline),
        "dataset": _name(dataset),
        "same_tokenizer": same_tokenizer,
        "documents": sum(split.documents for split in baseline.splits.values()),
        "documents_compared": sum(len(_numbers(split.documents, most_documents)) for split in baseline.splits.values()),
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


def _numbers(documents: int, most_documents: int | None) -> NDArray[np.int64]:
    return spread(documents, documents if most_documents is None else most_documents)


def _require_same_counts(first: DatasetInfo, second: DatasetInfo) -> None:
    found = [{name: (split.documents, split.bytes) for name, split in info.splits.items()} for info in (first, second)]
    if found[0] != found[1]:
        counts = ["; ".join(f"{name}: {documents:,} documents, {size:,} bytes" for name, (documents, size) in s.items()) for s in found]
        raise DataError(
            f"{first.path} ({counts[0]}) and {second.path} ({counts[1]}) do not hold the same documents. Arms of a study are compared "
            "on equal text: prepare both from the same inputs with the same --split, --min-tokens and --max-tokens."
        )


def _documents(
    first: DatasetInfo, second: DatasetInfo, most_documents: int | None, on_documents: Callable[[int, int], None]
) -> Iterator[_Both]:
    numbers = {name: _numbers(split.documents, most_documents) for name, split in first.splits.items()}
    done, total = 0, sum(map(len, numbers.values()))
    for name, chosen in numbers.items():
        for batch_numbers, batch in batches(first, name, chosen):
            parts = [other for _, other in batches(second, name, batch_numbers)]
            offsets = np.array([0, *accumulate(length for part in parts for length in part.lengths.tolist())])
            yield _Both(name, batch_numbers, batch, RaggedBatch(np.concatenate([part.ids for part in parts]), offsets))
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
