"""Where lm-evaluation-harness finds a task, and its data: YAML files of the user, or the harness's own with data of the user.

A folder TASK in the data folder that holds SPLIT.jsonl (or .json, .parquet) stands in the place of the dataset that the harness
would download for its task of that name; the fields must be those of that dataset.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import ConfigError, DataError, nearest

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def load_tasks(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The harness's task objects, with their data, of the tasks, groups or tags `names`. See `lm_eval_tasks.open_tasks` for errors."""
    from datasets.exceptions import DatasetsError
    from jinja2 import TemplateError

    manager, here = _find(path, names)
    tasks: dict[str, Any] = {}
    for name in names:
        if name not in manager.task_index:
            near = nearest(name, here or [name])
            raise ConfigError(f"No task {name!r} in the YAML files below {path} or in lm-evaluation-harness.{near}")
    with tempfile.TemporaryDirectory() as folder:
        local = _use_local_data(path, manager, Path(folder))
        for name in names:
            try:
                tasks |= manager.load([name])["tasks"]
            except (OSError, ValueError, KeyError, TypeError, ImportError, DatasetsError, TemplateError) as error:
                raise DataError(
                    f"Task {name} of lm-evaluation-harness cannot be loaded here: {type(error).__name__}: {error}. Nothing is downloaded. "
                    f"Data found below {path}: {', '.join(f'{task} ({splits})' for task, splits in local.items()) or 'none'}. Put the "
                    "dataset's records into TASK/SPLIT.jsonl there, one folder per task with every split that the task names, or write "
                    "a YAML file with `dataset_path: json` and `dataset_kwargs: {data_files: {test: /absolute/path.jsonl}}`."
                ) from error
    return tasks


def _find(path: Path, names: Sequence[str]) -> tuple[Any, list[str]]:
    """An index in which `names` and their members stand, if there are such tasks; and what the user's own files hold.

    The harness has some 14,000 task files, which take 12 s to parse; of its folders only those that mention a name are.
    """
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(path), include_defaults=False)
    here = list(manager.all_tasks)
    root = Path(lm_eval.tasks.__file__).parent
    missing, folders = set(names) - set(here), set[Path]()
    texts = [(file, file.read_text(encoding="utf-8", errors="replace")) for file in root.rglob("*.yaml")] if missing else []
    while missing:
        mention = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, sorted(missing)))})(?![\w.-])")
        found = {root / file.relative_to(root).parts[0] for file, text in texts if mention.search(text)}
        if found <= folders:
            break
        folders |= found
        manager = TaskManager(include_path=[*map(str, sorted(folders)), str(path)], include_defaults=False)
        missing = {member for name in names for member in _members(manager, name)} - set(manager.task_index)
    return manager, here


def _members(manager: Any, name: str) -> Iterator[str]:
    """`name` and, if it is a group, all that it names."""
    yield name
    entry = manager.task_index.get(name)
    listed = (entry.cfg or {}).get("task") if entry else None
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, str):
            yield from _members(manager, member)


def _use_local_data(path: Path, manager: Any, folder: Path) -> dict[str, str]:
    """Point tasks to the data folders of their name, by YAML files in `folder`; task -> splits found."""
    found = {}
    for data in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        files = {file.stem: file.absolute() for file in sorted(data.iterdir()) if file.suffix in READERS}
        entry = manager.task_index.get(data.name)
        if not files or entry is None or entry.yaml_path is None:
            continue
        readers = {READERS[file.suffix] for file in files.values()}
        if len(readers) > 1:
            raise DataError(f"{data} mixes {', '.join(sorted(file.name for file in files.values()))}. Use one format for all splits.")
        override: dict[str, Any] = {"include": str(entry.yaml_path), "task": data.name, "dataset_path": readers.pop(), "dataset_name": None}
        override["dataset_kwargs"] = {"data_files": {split: str(file) for split, file in files.items()}}
        (folder / f"{data.name}.yaml").write_text(json.dumps(override), encoding="utf-8")  # JSON is YAML
        manager.task_index[data.name] = replace(entry, yaml_path=folder / f"{data.name}.yaml")
        found[data.name] = ", ".join(files)
    return found
