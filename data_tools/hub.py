"""Hugging Face datasets as rows, streamed from the Hub or a local folder by the `datasets` library; its errors in our words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import ConfigError, DataError, nearest
from nemo_ext.common.files import sha256_of_file, sha256_of_json


@dataclass(frozen=True)
class HubSource:
    """A dataset: owner/name on the Hub, or a local folder. `fields` empty: all."""

    repo: str
    subset: str | None = None
    data_dir: str | None = None
    split: str = "train"
    fields: tuple[str, ...] = ()
    revision: str | None = None


# Corpora of the studies that this project serves, under names that are easy to remember.
KNOWN = {
    "sea-pile-v2-filipino": HubSource("aisingapore/SEA-PILE-v2", data_dir="tl", fields=("text",)),  # web text in Filipino, 7.4 GB
    "socsci210": HubSource("socratesft/SocSci210"),  # arXiv:2509.05830; 210 studies: `sibol data split --group-by study_id`
}


def known_source(source: HubSource) -> HubSource:
    """`source` with a name of KNOWN replaced by what it stands for; what was set beside it holds.

    Raises ConfigError when it is neither owner/name nor a folder nor a known name.
    """
    if source.repo in KNOWN:
        known = KNOWN[source.repo]
        return replace(
            known,
            subset=source.subset or known.subset,
            data_dir=source.data_dir or known.data_dir,
            split=source.split,
            fields=source.fields or known.fields,
            revision=source.revision,
        )
    if "/" not in source.repo and not Path(source.repo).is_dir():
        raise ConfigError(f"Dataset {source.repo!r}: expected owner/name, a folder or a known name.{nearest(source.repo, KNOWN)}")
    return source


def resolve_revision(source: HubSource) -> str:
    """The commit that `source.revision` names now; for a local folder, a digest of its files."""
    folder = Path(source.repo)
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return "files-" + sha256_of_json({str(path.relative_to(folder)): sha256_of_file(path) for path in files})
    from huggingface_hub import HfApi

    with _hub_errors(source):
        return str(HfApi().dataset_info(source.repo, revision=source.revision).sha)


def open_rows(source: HubSource, revision: str, position: dict[str, Any] | None) -> HubRows:
    """The rows of a dataset, from `position` on (from `HubRows.position`, None for the first)."""
    import datasets

    datasets.disable_progress_bars()
    pinned = None if Path(source.repo).is_dir() else revision
    with _hub_errors(source):
        rows = datasets.load_dataset(
            source.repo, name=source.subset, data_dir=source.data_dir, split=source.split, revision=pinned, streaming=True
        )
        splits = rows.info.splits or {}
        count = splits[source.split].num_examples if source.split in splits else None
        if source.fields:
            rows = rows.select_columns(list(source.fields))
        if position is not None:
            rows.load_state_dict(position)
        return HubRows(rows, count or None, source)


class HubRows:
    """A stream of rows that can say where it is. `count`: rows of the whole split, if the dataset says it."""

    def __init__(self, rows: Any, count: int | None, source: HubSource) -> None:
        self.count = count
        self._rows, self._iterator, self._source = rows, iter(rows), source

    def next_row(self) -> dict[str, Any] | None:
        """The next row; None after the last."""
        with _hub_errors(self._source):
            return next(self._iterator, None)

    def position(self) -> dict[str, Any]:
        """Where the stream stands, as JSON."""
        state: dict[str, Any] = json.loads(json.dumps(self._rows.state_dict()))
        return state


@contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, ValueError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:400]
        raise DataError(
            f"Cannot read dataset {source.repo} (subset {source.subset}, folder {source.data_dir}, split {source.split}, fields "
            f"{', '.join(source.fields) or 'all'}): {reason}\nCheck these names, the network, and for a gated dataset HF_TOKEN. "
            "The same command goes on with the rows that have arrived."
        ) from None
