"""Which studies of a survey data set are judged, under which name, and the proof that no study stands on both sides.

Three ways to say it: a folder of `sibol data split --group-by study_id`; a mapping file, name of a split -> its studies, such as the
participant_mapping.json of SocSci210; or nothing, and then results say that the split has no name. Splits within studies (by task
or condition) are refused: a model that has seen half of a study is not judged on an unseen one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.metrics.survey_answers import Scale
from evaluation.records import Record
from evaluation.tabular import read_rows
from nemo_ext.common.dataset import MANIFEST_NAME
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.files import read_json, sha256_of_file

GROUP_SPLIT_SCHEMA = "sibol.group-split/1"  # as data_tools.group_split writes it
STUDY = "study_id"
OFFICIAL = {"seen": 170, "unseen": 40}  # studies in participant_mapping.json of socratesft/SocSci210 (arXiv:2509.05830, section 5)
NAMED_AT_ONCE = 10


@dataclass(frozen=True)
class Split:
    """Where the data lie and what is judged: `studies`, or all for None. kind: official, reshuffled or unnamed."""

    kind: str
    path: Path
    name: str | None = None
    studies: frozenset[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def is_published(self) -> bool:
        """Whether published figures are of these studies."""
        return self.kind == "official" and self.name == "unseen"

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {"kind": self.kind, "name": self.name, **self.facts}


def choose_split(path: Path, name: str | None, mapping: str | None) -> Split:
    """The split `name` of what `path` and `mapping` say. Raises ConfigError, or DataError for a study in two splits."""
    manifest = _manifest(path)
    if mapping is not None:
        if manifest:
            raise ConfigError(f"{path} was split by `sibol data split`, so --set mapping={mapping} would split it again. Give one of them.")
        return _mapped(path, name, Path(mapping))
    if manifest:
        return _reshuffled(path, name or "test", manifest)
    if name is not None:
        raise ConfigError(
            f"--split {name} was given, but {path} is no folder of `sibol data split`. Leave the option out, or name the studies of each "
            "split with --set mapping=FILE."
        )
    warning = (
        "Nothing says which studies the model was trained on. Give the folder of `sibol data split --group-by study_id`, "
        "--set mapping=FILE or --set train=PATH."
    )
    return Split("unnamed", path, warnings=(warning,))


def _manifest(path: Path) -> dict[str, Any] | None:
    if not (path / MANIFEST_NAME).is_file():
        return None
    manifest: dict[str, Any] = read_json(path / MANIFEST_NAME, "manifest")
    if manifest.get("schema") != GROUP_SPLIT_SCHEMA or manifest.get("group_by") != STUDY:
        found = f"schema {manifest.get('schema')!r}, grouped by {manifest.get('group_by')!r}"
        raise DataError(f"{path / MANIFEST_NAME} has {found}. Expected {GROUP_SPLIT_SCHEMA!r}: `sibol data split --group-by {STUDY}`.")
    return manifest


def _reshuffled(path: Path, name: str, manifest: Mapping[str, Any]) -> Split:
    entries = manifest["splits"]
    if name not in entries:
        raise ConfigError(f"{path} has no split {name!r}. It has: {', '.join(entries)}. Choose one with --split.")
    # Read, not believed: lines may have been moved since the manifest was written.
    found = {other: studies_in(read_rows(path / entry["name"], (STUDY,))) for other, entry in entries.items()}
    _refuse_overlap(found, str(path))
    facts = {"shares": manifest["shares"], "seed": manifest["seed"], "manifest_sha256": sha256_of_file(path / MANIFEST_NAME)}
    return Split("reshuffled", path / entries[name]["name"], name, None, facts)


def _mapped(path: Path, name: str | None, mapping: Path) -> Split:
    table = read_json(mapping, "mapping of splits")
    if not isinstance(table, dict) or not all(isinstance(studies, list) for studies in table.values()) or not table:
        within = isinstance(table, dict) and any(isinstance(value, dict) for value in table.values())
        found = "splits within studies (by task or condition)" if within else "something else"
        raise DataError(f"{mapping} holds {found}. Expected names of splits, each with the list of its studies: participant_mapping.json.")
    splits = {split: {str(study) for study in studies} for split, studies in table.items()}
    _refuse_overlap(splits, str(mapping))
    name = name or ("unseen" if "unseen" in splits else "test")
    if name not in splits:
        raise ConfigError(f"{mapping} has no split {name!r}. It has: {', '.join(splits)}. Choose one with --split.")
    official = {split: len(studies) for split, studies in splits.items()} == OFFICIAL
    facts = {"mapping": str(mapping.absolute()), "mapping_sha256": sha256_of_file(mapping), "studies_in_mapping": len(splits[name])}
    return Split("official" if official else "reshuffled", path, name, frozenset(splits[name]), facts)


def studies_in(records: Iterable[Record]) -> set[str]:
    """The studies of records. Raises DataError naming one that has none."""
    return {study_of(record) for record in records}


def study_of(record: Record) -> str:
    """The study of a record."""
    study = record.fields.get(STUDY)
    if isinstance(study, bool) or not isinstance(study, str | int) or study == "":
        raise DataError(
            f"{record.place} has the {STUDY} {study!r}. Expected the name of a study, as text or a whole number; mend the record."
        )
    return str(study)


def _refuse_overlap(splits: Mapping[str, set[str]], where: str) -> None:
    counts = Counter(study for studies in splits.values() for study in studies)
    shared = sorted(study for study, count in counts.items() if count > 1)
    if shared:
        raise DataError(
            f"{where} has {named(shared)} in more than one of its splits ({', '.join(splits)}), so scores on one would be scores on what "
            "another was trained on. Split by study: `sibol data split --group-by study_id`."
        )


def named(studies: Iterable[str]) -> str:
    """`2 studies (a, b)`, long lists cut."""
    listed = sorted(studies)
    more = f", and {len(listed) - NAMED_AT_ONCE} more" if len(listed) > NAMED_AT_ONCE else ""
    return f"{len(listed)} {'study' if len(listed) == 1 else 'studies'} ({', '.join(listed[:NAMED_AT_ONCE])}{more})"


@dataclass(frozen=True)
class Training:
    """What is known of the training data: its studies, and how often each answer was given on each scale."""

    path: Path
    studies: frozenset[str]
    answers: dict[Scale, Counter[int]]

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        counted = sum(sum(counts.values()) for counts in self.answers.values())
        return {"path": str(self.path.absolute()), "studies": len(self.studies), "answers_on_a_scale": counted}


def training_path(path: Path) -> Path:
    """The training file of a folder of `sibol data split`; anything else as it is."""
    manifest = _manifest(path)
    return path / str(manifest["splits"]["train"]["name"]) if manifest else path


def refuse_seen(training: Training, judged: Iterable[str]) -> None:
    """Raise DataError naming the judged studies that are in the training data."""
    seen = sorted(training.studies & set(judged))
    if seen:
        raise DataError(
            f"The training data {training.path} hold {named(seen)} of those that are to be judged, so the scores would be of studies "
            "the model has seen. Judge studies that are not in it, or train on a split by study: `sibol data split --group-by study_id`."
        )
