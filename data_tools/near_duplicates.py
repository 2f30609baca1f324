"""`sibol data dedup`: leaves out documents that are nearly the same as an earlier one, and says which.

The inputs are read twice, for signatures and for copying. Memory: about 40 bytes per byte of the longest text, and 40 per
document. A temporary file beside the output takes 4 bytes times the permutations per document (512 MB for a million at 128), which the
system keeps in memory while there is room.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.bad_lines import BadLines
from data_tools.documents import BLANK_LINE, Document, parse
from data_tools.encode import Reject
from data_tools.inputs import FoundInputs, find_inputs
from data_tools.lines import LineReader
from data_tools.minhash import Bands, MinHash, choose_bands, hash_rows
from data_tools.outputs import LineFile, claimed_folder, line_suffix, whole_line
from nemo_ext.common.dataset import MANIFEST_NAME
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.files import write_json

DEDUP_SCHEMA = "sibol.dedup/1"
DUPLICATES_NAME = "duplicates.jsonl"
NEAR_DUPLICATE = "near-duplicate"
SEED = 1  # of the permutations; another one would only shift the estimates
KEPT = -1


@dataclass(frozen=True)
class DedupOptions:
    """What to read, and which documents count as the same: the share of common runs of `words` words is at least `threshold`.

    The share is estimated from `permutations` minima, with a standard error of at most 0.5 / sqrt(permutations).
    """

    inputs: tuple[str, ...]
    out: Path
    text_field: str = "text"
    threshold: float = 0.8
    words: int = 5
    permutations: int = 128
    on_bad_line: str = "fail"
    compression: str | None = None
    overwrite: bool = False


class Matches(NamedTuple):
    """For every document, the earlier one that it repeats (KEPT if none) and their estimated similarity."""

    earlier: NDArray[np.int64]
    similarity: NDArray[np.float32]


def remove_near_duplicates(options: DedupOptions, on_bytes: Callable[[int], None] = lambda count: None) -> dict[str, Any]:
    """Write the folder `options.out`: documents.jsonl with the lines that are kept, as they are; duplicates.jsonl; and a manifest.

    Returns the manifest. `on_bytes` hears how many bytes have been read, which in the end is twice the inputs.
    Raises ConfigError for options that make no sense, DataError for damaged inputs and bad lines, OutputExistsError, DiskFullError.
    """
    _check(options)
    inputs = find_inputs(options.inputs)
    suffix = line_suffix(inputs, options.compression)
    bands = choose_bands(options.permutations, options.threshold)
    with (
        claimed_folder(options.out, DEDUP_SCHEMA, options.overwrite) as folder,
        _Signatures(options, inputs, folder, on_bytes) as signatures,
    ):
        matches = find_matches(signatures.table(), bands, options.threshold)
        entry = _copy(inputs, folder, f"documents{suffix}", signatures, matches, on_bytes)
        removed = int((matches.earlier != KEPT).sum())
        manifest = {
            "schema": DEDUP_SCHEMA,
            "settings": {"threshold": options.threshold, "words": options.words, "permutations": options.permutations},
            "bands": {"count": bands.count, "rows": bands.rows},
            "text_field": options.text_field,
            "on_bad_line": options.on_bad_line,
            "inputs": signatures.digests,
            "documents": {**entry, "near_duplicates_removed": removed},
            "skipped": dict(sorted((signatures.skipped | {NEAR_DUPLICATE: removed}).items())),
        }
        write_json(folder / MANIFEST_NAME, manifest)
    return manifest


def _check(options: DedupOptions) -> None:
    if not 0 < options.threshold <= 1:
        raise ConfigError(f"--threshold {options.threshold}: expected a share above 0 and up to 1, such as 0.8.")
    for name, value in (("--words", options.words), ("--permutations", options.permutations)):
        if value < 1:
            raise ConfigError(f"{name} {value}: at least 1 is needed.")


class _Signatures:
    """The first reading: signatures of all documents, and which line each is."""

    def __init__(self, options: DedupOptions, inputs: FoundInputs, folder: Path, on_bytes: Callable[[int], None]) -> None:
        self._permutations = options.permutations
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by __exit__; it has no name, so nothing is left of it
        reader, minhash = LineReader(inputs), MinHash(options.permutations, options.words, SEED)
        self.has_document = bytearray()  # for every line
        with BadLines(options.on_bad_line, inputs, folder) as bad_lines:
            for batch in reader:
                texts = []
                for source in batch.documents:
                    found = parse(source, options.text_field, None)
                    self.has_document.append(isinstance(found, Document))
                    if isinstance(found, Document):
                        texts.append(found.text)
                    elif found.reason == BLANK_LINE:
                        bad_lines.counts[BLANK_LINE] += 1
                    else:
                        bad_lines.add(Reject(source, found))
                if texts:
                    self._file.write(minhash(texts).tobytes())
                on_bytes(batch.bytes_read)
        self.digests, self.skipped = reader.digests, dict(bad_lines.counts)

    def __enter__(self) -> _Signatures:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def table(self) -> NDArray[np.uint32]:
        """Signatures, [documents, permutations], by memory map."""
        self._file.flush()
        size = self._file.tell()
        flat = np.memmap(self._file, dtype=np.uint32, mode="r") if size else np.zeros(0, np.uint32)
        return flat.reshape(-1, self._permutations)


def find_matches(signatures: NDArray[np.uint32], bands: Bands, threshold: float) -> Matches:
    """Every document against the kept ones before it that agree on a band; the most similar of them is its match, if it reaches the
    threshold. A document that was left out is no reason to leave out another: likeness is not passed on along a chain."""
    matches = Matches(np.full(len(signatures), KEPT, dtype=np.int64), np.zeros(len(signatures), dtype=np.float32))
    kept_in: dict[int, list[int]] = {}
    for document, buckets in _shared_buckets(signatures, bands):
        candidates = np.array(sorted(set().union(*(kept_in.get(bucket, ()) for bucket in buckets))), dtype=np.int64)
        if len(candidates):
            similarity = (signatures[candidates] == signatures[document]).mean(axis=1)
            best = int(similarity.argmax())
            if similarity[best] >= threshold:
                matches.earlier[document], matches.similarity[document] = candidates[best], similarity[best]
                continue
        for bucket in buckets:
            kept_in.setdefault(bucket, []).append(document)
    return matches


def _shared_buckets(signatures: NDArray[np.uint32], bands: Bands) -> Iterator[tuple[int, list[int]]]:
    """In order, the documents that share a bucket with another, and those buckets. Most documents share none."""
    documents, buckets, first_bucket = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for band in range(bands.count):
        keys = hash_rows(signatures[:, band * bands.rows : (band + 1) * bands.rows])
        _, bucket, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(sizes[bucket] > 1)
        documents.append(shared)
        buckets.append(bucket[shared] + first_bucket)
        first_bucket += len(sizes)
    document, bucket = np.concatenate(documents), np.concatenate(buckets)
    order = np.argsort(document, kind="stable")
    document, bucket = document[order], bucket[order]
    limits = np.flatnonzero(np.diff(document, prepend=-1, append=-1)) if len(document) else np.zeros(1, np.int64)
    for start, end in zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True):
        yield int(document[start]), bucket[start:end].tolist()


def _copy(
    inputs: FoundInputs, folder: Path, name: str, signatures: _Signatures, matches: Matches, on_bytes: Callable[[int], None]
) -> dict[str, Any]:
    """The second reading. Raises DataError when the inputs are not what they were."""
    reader, line_number, places = LineReader(inputs), 0, _Places(inputs)
    with LineFile(folder / name) as kept, open(folder / DUPLICATES_NAME, "w", encoding="utf-8") as duplicates:
        for batch in reader:
            for source in batch.documents:
                if signatures.has_document[line_number : line_number + 1] == b"\x01":
                    document = places.add(source.file, source.line)
                    if matches.earlier[document] == KEPT:
                        kept.write(whole_line(source))
                    else:
                        duplicates.write(json.dumps(places.duplicate(document, matches), ensure_ascii=False) + "\n")
                line_number += 1
            on_bytes(inputs.size_bytes + batch.bytes_read)
        if reader.digests != signatures.digests:
            raise DataError("The inputs changed while they were read. Run again when they are complete.")
        return kept.finish()


class _Places:
    """Where every document came from, as one number of eight bytes: its file and its line."""

    def __init__(self, inputs: FoundInputs) -> None:
        self._inputs = inputs
        self._places = array("q")

    def add(self, file: int, line: int) -> int:
        """Note the place of the next document; returns its number."""
        self._places.append(file << 40 | line)
        return len(self._places) - 1

    def duplicate(self, document: int, matches: Matches) -> dict[str, Any]:
        """The line about a document that is left out."""
        (file, line), (same_file, same_line) = self._place(document), self._place(int(matches.earlier[document]))
        similarity = round(float(matches.similarity[document]), 3)
        return {"file": file, "line": line, "same_as_file": same_file, "same_as_line": same_line, "similarity": similarity}

    def _place(self, document: int) -> tuple[str, int]:
        file, line = divmod(self._places[document], 1 << 40)
        return str(self._inputs.files[file].path), line
