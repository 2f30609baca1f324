"""The benchmark of multiple choice: its items can be read, its bare passes are those of the suite, its ratios are of medians."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.loading import load_model, open_folder
from evaluation.suites import Settings
from evaluation.suites.multiple_choice import SUITE
from recipes.bench.evaluate import OPTIONS, claims, recorded_batches, run_bare, take_turns, write_items
from tests.support.tiny_language_models import save_tiny_qwen2


def test_both_contenders_run_the_same_batches_of_the_same_items(tmp_path: Path) -> None:
    model = load_model(open_folder(save_tiny_qwen2(tmp_path / "model", context=512)), "cpu")
    write_items(tmp_path / "items.jsonl", 30)
    items = SUITE.read(tmp_path / "items.jsonl", Settings())
    assert items.as_dict()["options_per_item"] == {str(OPTIONS): 30}
    found = take_turns(model, tmp_path / "items.jsonl", 2, lambda _: None)
    assert found["items"] == 30 and {name: len(turns) for name, turns in found["turns"].items()} == {"suite": 2, "bare passes": 2}
    with recorded_batches(model.network.model) as batches:
        SUITE.score(model, items, Settings(), lambda _: None)
        scored = len(batches)
        run_bare(model.network.model, batches[:scored])
    assert scored == found["batches"] and len(batches) == 2 * scored
    for one, other in zip(batches[:scored], batches[scored:], strict=True):
        assert one is not other and one["input_ids"] is other["input_ids"] and one["logits_to_keep"] == other["logits_to_keep"]
    assert sum(int(batch["attention_mask"].sum()) for batch in batches[:scored]) == found["tokens"] < found["positions"]


def test_ratios_are_of_medians_over_turns() -> None:
    turns = {"suite": [1.05, 1.1, 9.0], "bare passes": [1.0, 1.0, 8.0]}
    found = {"items": 7, "turns": {name: [{"wall_s": value, "cpu_s": 2 * value} for value in own] for name, own in turns.items()}}
    wall, cpu = claims(found)
    assert wall.measured == cpu.measured == pytest.approx(1.1) and wall.what.startswith("7 multiple-choice items")
