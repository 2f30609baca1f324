"""`sibol data split`: lines into train, validation and test files so that no group (a study, a participant) is in two of them.

A group falls into a split by the hash of its name and the seed: whatever the order of lines, and whatever other groups there are.
The proof is made from the finished files, which are read again. Memory grows with the number of groups, by some 100 bytes each.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.bad_lines import BadLines
from data_tools.documents import BLANK_LINE, Problem, parse_fields
from data_tools.encode import Reject
from data_tools.inputs import FoundInputs, find_inputs
from data_tools.lines import LineReader, RawDocument
from data_tools.outputs import LineFile, claimed_folder, line_suffix, whole_line
from data_tools.splits import SPLIT_NAMES, assign, parse_split
from nemo_ext.common.dataset import MANIFEST_NAME
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.files import write_json

GROUP_SPLIT_SCHEMA = "sibol.group-split/1"
MISSING_GROUP = "missing-group"
BAD_GROUP = "bad-group"
KEY_BYTES = 16  # of SHA-256: among 10**9 groups, two share a key with probability 10**-21


@dataclass(frozen=True)
class SplitOptions:
    """What to split, by which field (`a.b`: field b of the object in field a), in which shares. `compression` None: as the first input."""

    inputs: tuple[str, ...]
    out: Path
    group_by: str
    shares: str = "90,5,5"
    seed: int = 1234
    on_bad_line: str = "fail"
    compression: str | None = None
    overwrite: bool = False


def split_by_group(options: SplitOptions, on_bytes: Callable[[int], None] = lambda count: None) -> dict[str, Any]:
    """Write the folder `options.out` with train.jsonl, validation.jsonl, test.jsonl and a manifest, which is returned.

    Lines are copied as they are. `on_bytes` hears how many bytes of the inputs have been read.
    Raises ConfigError for options that make no sense, DataError for damaged inputs, bad lines, and a split that no group fell into,
    OutputExistsError, DiskFullError.
    """
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: expected 0 or more.")
    limits = parse_split(options.shares, "--shares")
    inputs = find_inputs(options.inputs)
    suffix = line_suffix(inputs, options.compression)
    with claimed_folder(options.out, GROUP_SPLIT_SCHEMA, options.overwrite) as folder:
        results = _write(options, limits, inputs, folder, suffix, on_bytes)
        _require_all(options, results["splits"])
        manifest = {
            "schema": GROUP_SPLIT_SCHEMA,
            "group_by": options.group_by,
            "shares": options.shares,
            "seed": options.seed,
            "on_bad_line": options.on_bad_line,
            **results,
            "proof": _prove(folder, results["splits"], options.group_by),
        }
        write_json(folder / MANIFEST_NAME, manifest)
    return manifest


def group_of(source: RawDocument, field: str) -> str | Problem:
    """The name of a line's group: the value of `field`, a string or a whole number."""
    value: Any = parse_fields(source)
    if isinstance(value, Problem):
        return value
    steps = [field] if field in value else field.split(".")
    for position, step in enumerate(steps):
        if not isinstance(value, dict) or step not in value:
            return Problem(MISSING_GROUP, f"no field {'.'.join(steps[: position + 1])!r}")
        value = value[step]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return Problem(BAD_GROUP, f"field {field!r} holds {value!r:.40}; expected a string or a whole number")
    return str(value)


def key_of(group: str, seed: int) -> bytes:
    """What stands for a group: the hash of its name, keyed by the seed."""
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


def _write(
    options: SplitOptions,
    limits: tuple[int, int, int],
    inputs: FoundInputs,
    folder: Path,
    suffix: str,
    on_bytes: Callable[[int], None],
) -> dict[str, Any]:
    reader = LineReader(inputs)
    with BadLines(options.on_bad_line, inputs, folder) as bad_lines, _SplitFiles(folder, suffix, limits, options.seed) as files:
        for batch in reader:
            for source in batch.documents:
                group = group_of(source, options.group_by)
                if not isinstance(group, Problem):
                    files.add(group, whole_line(source))
                elif group.reason == BLANK_LINE:
                    bad_lines.counts[BLANK_LINE] += 1
                else:
                    bad_lines.add(Reject(source, group))
            on_bytes(batch.bytes_read)
        entries = files.finish()
    return {"inputs": reader.digests, "splits": entries, "skipped": dict(sorted(bad_lines.counts.items()))}


class _SplitFiles(AbstractContextManager["_SplitFiles"]):
    """The files of the splits that have a share, and the split of every group so far."""

    def __init__(self, folder: Path, suffix: str, limits: tuple[int, int, int], seed: int) -> None:
        self._limits, self._seed = limits, seed
        self._split_of: dict[bytes, int] = {}
        self._stack = ExitStack()
        shares = np.diff([0, *limits]).tolist()
        self._files = {
            position: self._stack.enter_context(LineFile(folder / f"{name}{suffix}"))
            for position, (name, share) in enumerate(zip(SPLIT_NAMES, shares, strict=True))
            if share
        }

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, group: str, line: bytes) -> None:
        """Write a line of a group into the group's split."""
        key = key_of(group, self._seed)
        if key not in self._split_of:
            number = np.array([int.from_bytes(key[:8], "big")], dtype=np.uint64)
            self._split_of[key] = int(assign(number, self._limits)[0])
        self._files[self._split_of[key]].write(line)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Close the files; the manifest's entry of every split."""
        groups = Counter(self._split_of.values())
        return {SPLIT_NAMES[position]: {**file.finish(), "groups": groups[position]} for position, file in self._files.items()}


def _require_all(options: SplitOptions, splits: dict[str, dict[str, Any]]) -> None:
    empty = [name for name, entry in splits.items() if not entry["lines"]]
    if empty:
        groups = sum(entry["groups"] for entry in splits.values())
        raise DataError(
            f"No group fell into {' and '.join(empty)}: there are {groups} groups of {options.group_by!r} for shares {options.shares}. "
            f"Give larger --shares, another --seed (now {options.seed}), or a share of 0 to a split that is not needed."
        )


def _prove(folder: Path, splits: dict[str, Any], field: str) -> dict[str, Any]:
    """Read the finished files and compare their groups. Raises AssertionError if one is in two splits: that would be our mistake."""
    found: dict[str, set[bytes]] = {}
    for name, entry in splits.items():
        keys, lines = set[bytes](), 0
        for batch in LineReader(find_inputs([str(folder / entry["name"])])):
            for source in batch.documents:
                group = group_of(source, field)
                assert isinstance(group, str), f"{name} has a line without a group"
                keys.add(key_of(group, 0))
                lines += 1
        assert (lines, len(keys)) == (entry["lines"], entry["groups"]), f"{name} lost lines"
        found[name] = keys
    shared = sum(len(found[one] & found[other]) for one, other in combinations(found, 2))
    assert shared == 0, f"{shared} groups are in two splits"
    return {"method": "files read again", "groups": {name: len(keys) for name, keys in found.items()}, "groups_in_two_splits": shared}
