"""Writes a benchmark as one folder: the files of the suites asked for, in the published schemas, and a manifest.

The folder holds for the same arguments the same bytes. It appears whole or not at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from evaluation.benchmarks import games, hierarchical, morphology, spelling, syllabification
from evaluation.benchmarks.lexicon import ENGLISH, FILIPINO, english_words, filipino
from evaluation.benchmarks.questions import Task, ask, choice_rows, free_rows, level_rows
from nemo_ext.common.errors import ConfigError, OutputExistsError, nearest
from nemo_ext.common.files import atomic_folder, sha256_of_file, write_json

SCHEMA = "sibol.benchmark/1"
VERSION = 1  # rises whenever the same arguments would give other items
LANGUAGES = ("en", "tl")
FORMS = ("mcq", "gen")
Rows = list[dict[str, Any]]
Files = Iterator[tuple[str, Rows]]  # name without ending -> rows without ids


@dataclass(frozen=True)
class Request:
    """What is asked for. `items`: of each subcategory, of each level in the hierarchy. `language`: of questions that have only one."""

    items: int = 50
    seed: int = 1234
    language: str = "tl"


def pacute(request: Request) -> Files:
    """Six families, each by choice and by free answer."""
    lexicon = filipino()
    words = spelling.countable([*lexicon.roots, *(word.form for word in lexicon.plain)])
    families: dict[str, dict[str, Task]] = {
        "affixation": morphology.affixation(lexicon),
        "composition": spelling.composition(words),
        "manipulation": spelling.manipulation(words),
        "morphological_extraction": morphology.extraction(lexicon),
        "morphological_production": morphology.production(lexicon),
        "syllabification": syllabification.syllabification(lexicon),
    }
    for family, tasks in families.items():
        asked = {name: ask(task, request.items, request.seed, f"{family}/{name}") for name, task in tasks.items()}
        draw = Random(f"{request.seed}:{family}:order")
        yield f"{family}_mcq", [row for name, found in asked.items() for row in choice_rows(family, name, found, draw)]
        yield f"{family}_gen", [row for name, found in asked.items() for row in free_rows(family, name, found)]


def levels(request: Request) -> Files:
    """The hierarchy, level by level."""
    found = hierarchical.chains(filipino(), request.items, request.seed)
    for form in FORMS:
        draw = Random(f"{request.seed}:hierarchical_{form}:order")
        rows: Rows = []
        for level, category in enumerate(hierarchical.LEVELS):
            names, questions = zip(*(chain[level] for chain in found), strict=True) if found else ((), ())
            made = level_rows(level, category, "", list(questions), form == "mcq", draw)
            rows += [row | {"subcategory": name} for row, name in zip(made, names, strict=True)]
        yield f"hierarchical_{form}", rows


def langgame(request: Request) -> Files:
    """Six games about English or Filipino words."""
    lexicon = filipino()
    words = english_words() if request.language == "en" else spelling.countable([*lexicon.roots, *(word.form for word in lexicon.words)])
    tasks = games.langgame(sorted(words))
    for form in FORMS:
        made = (
            games.langgame_rows(task, name, request.language, request.items, request.seed, form == "mcq") for name, task in tasks.items()
        )
        yield f"langgame_{form}", [row for rows in made for row in rows]


def addition(request: Request) -> Files:
    """Sums."""
    for form in FORMS:
        yield f"multi_digit_addition_{form}", games.addition_rows(request.items, request.seed, form == "mcq")


BENCHMARKS: dict[str, Callable[[Request], Files]] = {"pacute": pacute, "hierarchical": levels, "langgame": langgame, "addition": addition}


def generate(out: Path | str, suites: Sequence[str] = tuple(BENCHMARKS), request: Request | None = None) -> dict[str, Any]:
    """Write the folder `out` and return its manifest.

    Raises ConfigError for what is not known or out of range, OutputExistsError when `out` is there already.
    """
    out, request = Path(out), request or Request()
    _check(out, suites, request)
    with atomic_folder(out) as folder:
        files: dict[str, Any] = {}
        for suite in dict.fromkeys(suites):
            for name, rows in BENCHMARKS[suite](request):
                files[f"{name}.jsonl"] = _write(folder / f"{name}.jsonl", name, rows) | {"suite": suite}
        manifest = _manifest(suites, request, files)
        write_json(folder / "manifest.json", manifest)
    return manifest


def _check(out: Path, suites: Sequence[str], request: Request) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputExistsError(f"{out} already exists, and a benchmark replaces nothing. Choose another place or remove it.")
    for suite in suites:
        if suite not in BENCHMARKS:
            raise ConfigError(f"--suites: nothing is generated for {suite!r}.{nearest(suite, BENCHMARKS)}")
    if not suites:
        raise ConfigError(f"--suites is empty. Name some of: {', '.join(BENCHMARKS)}.")
    if request.items < 1:
        raise ConfigError(f"--items {request.items} asks for no items. Expected 1 or more of each subcategory.")
    if request.language not in LANGUAGES:
        raise ConfigError(f"--language {request.language!r} is not known. Expected one of: {', '.join(LANGUAGES)}.")


def _write(path: Path, name: str, rows: Rows) -> dict[str, Any]:
    with path.open("w", encoding="utf-8") as handle:
        for number, row in enumerate(rows):
            handle.write(json.dumps(row | {"id": f"{name}_{number:05d}"}, ensure_ascii=False) + "\n")
    counts = Counter(str(row.get("level", row["subcategory"])) for row in rows)
    return {"items": len(rows), "sha256": sha256_of_file(path), "subcategories": dict(counts)}


def _manifest(suites: Sequence[str], request: Request, files: dict[str, Any]) -> dict[str, Any]:
    """What was asked for and what there is: a subcategory with fewer items than asked for had no further different ones."""
    short = {
        f"{name}: {subcategory}": count
        for name, entry in files.items()
        for subcategory, count in entry["subcategories"].items()
        if count < request.items
    }
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "suites": list(dict.fromkeys(suites)),
        "items_asked_for_per_subcategory": request.items,
        "seed": request.seed,
        "language": request.language,
        "items": sum(entry["items"] for entry in files.values()),
        "fewer_than_asked_for": short,
        "files": files,
        "words": {path.name: sha256_of_file(path) for path in (FILIPINO, ENGLISH)},
    }
