"""Machine code of sources that are gone does not stay in the user's cache forever."""

from __future__ import annotations

import os
import time
from pathlib import Path

from nemo_ext.tokenizers.compiled import UNUSED_S, remove_unused


def test_machine_code_that_was_not_used_for_long_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("machine-code-old", "machine-code-recent", "other-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "function.nbc").write_bytes(b"code")
        if name.endswith("old"):
            os.utime(tmp_path / name, (0, time.time() - UNUSED_S - 60))
    remove_unused(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["machine-code-recent", "other-old"]
