"""`sibol stage`: models and datasets of the Hugging Face Hub, fetched where there is internet for jobs that run where there is none.

Into a cache (what `HF_HOME` names, for `offline_cache` of a site) or into a plain folder (for `model.init_from`). Either way the commit
that a name stood for is written down, and what is there is looked up once more as a job without internet will.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.files import disk_errors, read_json, write_json

SCHEMA = "sibol.staged/1"
RECORD = "staged.json"


@dataclass(frozen=True)
class Staged:
    """What was fetched. `commit` is what `revision` named on the Hub; `bytes` counts the files' contents."""

    repo: str
    kind: str
    revision: str
    commit: str
    files: int
    bytes: int
    folder: str


def parse_repo(text: str) -> tuple[str, str]:
    """(owner/name, revision) of `owner/name[@revision]`. Raises ConfigError."""
    repo, _, revision = text.partition("@")
    owner, _, name = repo.partition("/")
    if not owner or not name or "/" in name or (revision == "" and "@" in text):
        raise ConfigError(f"{text!r} is no repository of the Hub. Write owner/name, or owner/name@REVISION.")
    return repo, revision or "main"


def stage(text: str, kind: str, cache: Path | None, out: Path | None, skip: Sequence[str] = ()) -> Staged:
    """Fetch a repository (`kind` "model" or "dataset") into a cache or into the folder `out`; files that match `skip` are left out.

    What has arrived of an interrupted one is not fetched again. Raises ConfigError, DataError (not found, no access, no network).
    """
    from huggingface_hub import HfApi, snapshot_download

    repo, revision = parse_repo(text)
    if (cache is None) == (out is None):
        raise ConfigError("Give one place: --cache DIR for a Hugging Face cache, or --to DIR for a plain folder.")
    place = {"cache_dir": cache / "hub"} if cache is not None else {"local_dir": out}
    options: dict[str, Any] = {"repo_type": kind, "ignore_patterns": list(skip) or None, **place}
    with _hub_errors(repo, revision), disk_errors(cache or out or Path()):
        commit = str(HfApi().repo_info(repo, repo_type=kind, revision=revision).sha)
        # under the name that jobs will ask for, so that the cache knows what it stands for
        folder = Path(snapshot_download(repo, revision=revision, **options))
        if cache is not None:
            snapshot_download(repo, revision=revision, local_files_only=True, **options)
    if cache is not None and folder.name != commit:
        raise DataError(
            f"{repo} moved from {commit} to {folder.name} while it was fetched. Run the same command again, or pin {repo}@{commit}."
        )
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.relative_to(folder).parts]
    staged = Staged(repo, kind, revision, commit, len(files), sum(path.stat().st_size for path in files), str(folder))
    note(cache or folder.parent, staged)
    return staged


def note(folder: Path, staged: Staged) -> None:
    """Add to the folder's record of what lies in it, replacing an earlier entry of the same repository."""
    path = folder / RECORD
    entries = read_json(path, "record of staged repositories")["staged"] if path.is_file() else []
    kept = [entry for entry in entries if (entry["repo"], entry["folder"]) != (staged.repo, staged.folder)]
    write_json(path, {"schema": SCHEMA, "staged": [*kept, asdict(staged)]})


@contextmanager
def _hub_errors(repo: str, revision: str) -> Any:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from requests import RequestException

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RequestException) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"Cannot fetch {repo} at {revision}: {reason}\nCheck the name and the network; a gated one needs HF_TOKEN and accepted terms "
            "on its page. On a site whose compute nodes are offline, run this on a login node."
        ) from None
