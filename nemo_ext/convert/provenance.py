"""What the provenance.json of every Hugging Face folder that we write says: when, and by which versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PROVENANCE_SCHEMA = "sibol.provenance/1"
_PACKAGES = ("sibol", "nemo_toolkit", "megatron-core", "torch", "transformers", "safetensors")


def provenance_record(known: Mapping[str, Any]) -> dict[str, Any]:
    """A record of `known` with schema, time (UTC) and the versions of the packages that had a part in it."""
    return {
        **known,
        "schema": PROVENANCE_SCHEMA,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: package_version(name) for name in _PACKAGES}},
    }


def package_version(package: str) -> str | None:
    """Version of an installed package, None in a checkout that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
