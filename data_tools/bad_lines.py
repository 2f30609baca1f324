"""What happens to lines that hold no document: fail, skip or quarantine. All of it is counted."""

from __future__ import annotations

import base64
import json
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

from data_tools.documents import snippet
from data_tools.encode import Reject
from data_tools.inputs import FoundInputs
from nemo_ext.common.errors import DataError

POLICIES = ("fail", "skip", "quarantine")
QUARANTINE_NAME = "quarantine.jsonl"


class BadLines(AbstractContextManager["BadLines"]):
    """Applies one policy; `counts` has the number of lines left out, by reason. Quarantined lines go into `folder`, if there is one."""

    def __init__(self, policy: str, inputs: FoundInputs, folder: Path | None) -> None:
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
        place = f"{path}:{source.line}" if source.line else str(path)
        if self._policy == "fail":
            raise DataError(
                f"{place}: {problem.reason} ({problem.detail}). It begins: {snippet(source.raw)}\nMend it, or pass --on-bad-line skip "
                f"to leave such lines out and count them, or --on-bad-line quarantine to also keep them in {QUARANTINE_NAME}."
            )
        self.counts[problem.reason] += 1
        if self._file is not None:
            record = {"file": str(path), "line": source.line, "reason": problem.reason, "detail": problem.detail}
            self._file.write(json.dumps(record | _raw_field(source.raw), ensure_ascii=False) + "\n")


def _raw_field(raw: bytes) -> dict[str, str]:
    try:
        return {"raw": raw.decode("utf-8").removesuffix("\n")}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(raw).decode("ascii")}
