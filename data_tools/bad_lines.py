"""What happens to lines that hold no document: fail, skip or quarantine. All of it is counted."""

from __future__ import annotations

import base64
import json
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from data_tools.documents import Problem, snippet
from data_tools.encode import Reject
from data_tools.inputs import FoundInputs
from nemo_ext.common.errors import ConfigError, DataError

POLICIES = ("fail", "skip", "quarantine")
QUARANTINE_NAME = "quarantine.jsonl"
LONGEST_KEPT = 1 << 20  # of a longer line its beginning is kept; file, line and size say where the rest is


class BadLines(AbstractContextManager["BadLines"]):
    """Applies one policy; `counts` has the number of lines left out, by reason. Quarantined lines go into `folder`, if there is one.

    Raises ConfigError for a policy that is not known.
    """

    def __init__(self, policy: str, inputs: FoundInputs, folder: Path | None) -> None:
        check_policy(policy)
        self.counts: Counter[str] = Counter()
        self._policy, self._inputs = policy, inputs
        keeps = policy == "quarantine" and folder is not None
        self._file = open(folder / QUARANTINE_NAME, "w", encoding="utf-8") if folder is not None and keeps else None  # noqa: SIM115  closed by __exit__

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, reject: Reject) -> None:
        """Handle one line. Raises DataError under the policy "fail", naming file, line, reason and remedy."""
        source, problem = reject
        path = self._inputs.files[source.file].path
        if self._policy == "fail":
            raise bad_line_error(path, source.line, problem, source.raw)
        self.counts[problem.reason] += 1
        if self._file is not None:
            self._file.write(json.dumps(reject_record(reject) | {"file": str(path)}, ensure_ascii=False) + "\n")


def check_policy(policy: str) -> None:
    """Raise ConfigError unless the policy is known."""
    if policy not in POLICIES:
        raise ConfigError(f"--on-bad-line {policy!r} is not known. Choose one of: {', '.join(POLICIES)}.")


def bad_line_error(path: Path, line: int, problem: Problem, raw: bytes) -> DataError:
    """The error for a line that holds no document: file, line, reason, beginning and remedy."""
    place = f"{path}:{line}" if line else str(path)
    return DataError(
        f"{place}: {problem.reason} ({problem.detail}). It begins: {snippet(raw)}\nMend it, or pass --on-bad-line skip "
        f"to leave such lines out and count them, or --on-bad-line quarantine to also keep them in {QUARANTINE_NAME}."
    )


def reject_record(reject: Reject) -> dict[str, Any]:
    """A reject as JSON: the line as it was, or its beginning and its size when it is very long."""
    source, problem = reject
    raw = bytes(source.raw[:LONGEST_KEPT]).removesuffix(b"\n")
    record: dict[str, Any] = {"file": source.file, "line": source.line, "reason": problem.reason, "detail": problem.detail}
    if len(source.raw) > LONGEST_KEPT:
        record["raw_bytes"] = len(source.raw)
    try:
        return record | {"raw": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return record | {"raw_base64": base64.b64encode(raw).decode("ascii")}
