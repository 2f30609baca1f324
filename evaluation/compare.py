"""`sibol compare`: paired differences between models, which of them are noise, and in what the compared runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.compare_arms import FEW_ITEMS, compare_measurement, describe_unpaired
from evaluation.compare_facts import (
    BUDGET,
    CONSEQUENCES,
    SEEDS,
    Facts,
    covered,
    facts_of_measured,
    facts_of_run,
    run_bytes_per_token,
    windows_of,
)
from evaluation.compare_inputs import Inputs, Measured, Run, read_inputs
from evaluation.stored import NoItemScoresError
from nemo_ext.common.errors import DataError

COMPARISON_SCHEMA = "sibol.comparison/1"


def compare(arguments: Sequence[str | Path], factors: Sequence[str] = ()) -> dict[str, Any]:
    """Compare run folders and results, as `comparison.json` holds it.

    factors: dotted names of what is under study (a prefix covers all below it); any other difference is warned of.
    Raises DataError when there are not two of anything, or an input is missing or damaged.
    """
    inputs = read_inputs(arguments)
    arms = {one.label for one in inputs.measured} | {one.label for one in inputs.runs}
    if len(arms) < 2:
        raise DataError(
            f"Nothing to compare: found {', '.join(sorted(arms)) or 'nothing'}. Give at least two models or runs, "
            "or results with a baseline; what shares a LABEL= counts as one."
        )
    return compare_inputs(inputs, factors)


def compare_inputs(inputs: Inputs, factors: Sequence[str] = ()) -> dict[str, Any]:
    """As `compare`, of what was read already; with a single model there are no comparisons."""
    groups = _measurements(inputs.measured)
    suites, unpaired = _compare_groups(groups)
    facts = _facts_of_arms(inputs)
    differences = _differences(facts, factors)
    warnings = [*unpaired, *_notes_on_groups(groups), *_notes_on_suites(suites), *_notes_on_facts(facts, differences, factors)]
    return {
        "schema": COMPARISON_SCHEMA,
        "factors": list(factors),
        "suites": suites,
        "runs": [describe_run(run) for run in inputs.runs],
        "differences": differences,
        "unknown": list(dict.fromkeys(line for arm in facts.values() for one in arm for line in one.unknown)),
        "warnings": list(dict.fromkeys(warnings)),
    }


def _compare_groups(groups: Sequence[Sequence[Measured]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The suites, and which of them cannot be compared item by item, and why."""
    suites, reasons = [], []
    for group in groups:
        try:
            suites.append(compare_measurement(group))
        except NoItemScoresError as error:
            suites.append(describe_unpaired(group))
            reasons.append(f"{group[0].suite['name']} is not compared item by item: {error}")
    return suites, reasons


def describe_run(run: Run) -> dict[str, Any]:
    """State, figures and digests of a run."""
    ratio = run_bytes_per_token(run)
    summary = run.history.summary() if run.history else None
    digests = {"run.yaml": run.settings_sha256, "metrics.jsonl": run.history.sha256 if run.history else None}
    found = {"label": run.label, "run": str(run.path.absolute()), "state": run.state, "sha256": digests, "bytes_per_token": ratio}
    return found | {"bytes": round(summary["tokens"] * ratio) if summary and ratio else None, "figures": summary}


def _measurements(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Groups of what was measured alike, in the order of their first appearance."""
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(json.dumps(one.source.measurement(), sort_keys=True), []).append(one)
    return list(groups.values())


def _facts_of_arms(inputs: Inputs) -> dict[str, list[Facts]]:
    facts: dict[str, list[Facts]] = {}
    seen: dict[tuple[str, str], Facts] = {}
    for one in inputs.measured:
        key = (one.label, one.model["weights_sha256"])
        if key not in seen:  # a model in several suites is one model
            seen[key] = facts_of_measured(one)
            facts.setdefault(one.label, []).append(seen[key])
        seen[key].known |= windows_of(one)
    for run in inputs.runs:
        if run.label not in facts:
            facts[run.label] = []
        facts[run.label].append(facts_of_run(run))
    return facts


def _differences(facts: dict[str, list[Facts]], factors: Sequence[str]) -> list[dict[str, Any]]:
    """Facts that are known of at least two arms and differ among them, or within one; values as JSON, per arm."""
    found = []
    for name in sorted({name for arm in facts.values() for one in arm for name in one.known}):
        values = {label: _values(arm, name) for label, arm in facts.items()}
        values = {label: seen for label, seen in values.items() if seen}
        if len({json.dumps(seen) for seen in values.values()}) > 1 or any(len(seen) > 1 for seen in values.values()):
            kind = "seed" if covered(name, SEEDS) else "budget" if covered(name, BUDGET) else name.partition(".")[0]
            shown = {label: [json.loads(value) for value in seen] for label, seen in values.items()}
            found.append({"name": name, "kind": kind, "factor": covered(name, list(factors)), "values": shown})
    return found


def _values(arm: Sequence[Facts], name: str) -> list[str]:
    return sorted({json.dumps(one.known[name], sort_keys=True) for one in arm if name in one.known})


def _notes_on_groups(groups: Sequence[Sequence[Measured]]) -> Iterable[str]:
    """Results of one suite that cannot be paired, and why."""
    for number, group in enumerate(groups):
        for other in groups[number + 1 :]:
            first, second = group[0].source.measurement(), other[0].source.measurement()
            if first["suite"] == second["suite"]:
                unlike = [name for name in first | second if first.get(name) != second.get(name)]
                names = " and ".join(", ".join(dict.fromkeys(one.label for one in members)) for members in (group, other))
                yield f"{first['suite']} of {names} is not compared: {', '.join(unlike)} differ."


def _notes_on_suites(suites: Sequence[dict[str, Any]]) -> Iterable[str]:
    for suite in suites:
        name = suite["suite"]
        independent = suite["clusters"] or suite["items"]
        if independent < FEW_ITEMS:
            what = "clusters of items" if suite["clusters"] else "items"
            yield f"{name}: {independent} {what}; with fewer than {FEW_ITEMS} the intervals are too narrow."
        for arm in suite["arms"]:
            if len(set(arm["weights_sha256"])) < arm["seeds"]:
                yield f"{name}: {arm['label']} counts the same weights more than once; those are no training seeds of their own."
        if suite["comparisons"] and all(arm["seeds"] == 1 for arm in suite["arms"]):
            yield f"{name}: one seed per arm, so the intervals are over items only, and another seed may differ by more."
        alone = [arm["label"] for arm in suite["arms"] if arm["seeds"] == 1]
        if alone and len(alone) < len(suite["arms"]):
            yield f"{name}: {', '.join(alone)} has one seed, so the spread of its seeds is not in the intervals."


def _notes_on_facts(facts: dict[str, list[Facts]], differences: Sequence[dict[str, Any]], factors: Sequence[str]) -> Iterable[str]:
    others = [one for one in differences if not one["factor"]]
    for one in others:
        if one["kind"] in ("budget", "evaluation") or (factors and one["kind"] != "seed"):
            yield f"{one['name']} differs{_spread(one)}: {shown_values(one)}."
        if one["kind"] != "seed":
            mixed = [label for label, seen in one["values"].items() if len(seen) > 1]
            yield from (f"{label} mixes runs that differ in more than their seed: {one['name']}." for label in mixed)
    settings = [one["name"] for one in others if one["kind"] not in ("seed", "budget", "evaluation")]
    if not factors and len(settings) > 1:
        yield f"The arms differ in {len(settings)} settings ({', '.join(settings)}); name the one under study with --factor."
    seeds = [one for one in others if one["kind"] == "seed"]
    if seeds and all(len(seen) == 1 for one in seeds for seen in one["values"].values()):
        yield from (f"{one['name']} differs, which is a difference of its own: {shown_values(one)}." for one in seeds)
    if len(facts) > 1 and len(differences) == len(seeds) and seeds and not factors:
        yield "The arms differ in nothing but seeds; give them one LABEL= to see mean and spread."


def shown_values(difference: dict[str, Any]) -> str:
    """`A 1, B 2`, long values cut."""
    parts = []
    for label, seen in difference["values"].items():
        texts = [f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)[:40] for value in seen]
        parts.append(f"{label} {' | '.join(texts)}")
    return ", ".join(parts)


def _spread(difference: dict[str, Any]) -> str:
    """` by 12 %` for positive numbers."""
    values = [value for seen in difference["values"].values() for value in seen]
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0]
    if len(numbers) < len(values) or not covered(difference["name"], [*BUDGET, *CONSEQUENCES]):
        return ""
    ratio = max(numbers) / min(numbers)
    return f" by {ratio - 1:.2%}" if ratio < 2 else f" by a factor of {ratio:.3g}"
