"""Every layout of ranks computes the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.training import losses, small_run, train_on_ranks

LAYOUTS = {
    "tp2": (2, ["parallel.tp=2"]),
    "tp2_sequence_parallel": (2, ["parallel.tp=2", "parallel.sequence_parallel=true"]),
    "pp2": (2, ["parallel.pp=2"]),
    "tp2_pp2": (4, ["parallel.tp=2", "parallel.pp=2"]),
    "dp2": (2, []),
    "dp2_without_distributed_optimizer": (2, ["parallel.distributed_optimizer=false"]),
    "micro_batch_2": (1, ["train.micro_batch_size=2"]),
    "full_recompute": (1, ["train.recompute=full"]),
    "selective_recompute_tp2": (2, ["parallel.tp=2", "train.recompute=selective"]),
}
# Windows shorter than the sequence, both kinds of layers, and one key/value head for two tensor parallel ranks.
GEMMA3 = [
    "model.family=gemma3",
    "model.overrides.num_key_value_heads=1",
    "model.overrides.sliding_window=8",
    "model.overrides.layer_types=[sliding_attention, full_attention, sliding_attention, full_attention]",
    "train.max_steps=8",
]
GEMMA3_LAYOUTS = {
    "tp2_pp2_sequence_parallel": (4, ["parallel.tp=2", "parallel.pp=2", "parallel.sequence_parallel=true"]),
    "tp2_full_recompute": (2, ["parallel.tp=2", "train.recompute=full"]),
}


@pytest.fixture(scope="module")
def single_rank(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return train_on_ranks(1, small_run(tmp_path_factory.mktemp("single"), dataset))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_twenty_steps_have_the_losses_of_a_single_rank_to_1e_5(
    layout: str, single_rank: list[dict[str, Any]], dataset: Path, tmp_path: Path
) -> None:
    ranks, overrides = LAYOUTS[layout]
    lines = train_on_ranks(ranks, small_run(tmp_path, dataset, *overrides))
    assert len(losses(lines)) == 20
    assert losses(lines) == pytest.approx(losses(single_rank), abs=1e-5, rel=0)
    for line, reference in zip(lines, single_rank, strict=True):
        if "grad_norm" in line:
            assert line["grad_norm"] == pytest.approx(reference["grad_norm"], rel=2e-5)
        if "validation_loss" in line:
            assert line["validation_loss"] == pytest.approx(reference["validation_loss"], abs=1e-5)
    assert lines[0]["weights"]["fingerprint"] == single_rank[0]["weights"]["fingerprint"]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_family_has_the_losses_of_a_single_rank_when_it_is_split(family: str, dataset: Path, tmp_path: Path) -> None:
    split = ["parallel.tp=2", "parallel.pp=2", "parallel.sequence_parallel=true"]
    one, four = (
        train_on_ranks(ranks, small_run(tmp_path / str(ranks), dataset, *overrides, family=family))
        for ranks, overrides in ((1, []), (4, split))
    )
    assert len(losses(four)) == 20
    assert losses(four) == pytest.approx(losses(one), abs=1e-5, rel=0)
    assert losses(one)[-1] < losses(one)[0] - 0.2


def test_gemma3_has_the_losses_of_a_single_rank_in_other_layouts(dataset: Path, tmp_path: Path) -> None:
    reference = train_on_ranks(1, small_run(tmp_path / "single", dataset, *GEMMA3))
    for layout, (ranks, overrides) in GEMMA3_LAYOUTS.items():
        lines = train_on_ranks(ranks, small_run(tmp_path / layout, dataset, *GEMMA3, *overrides))
        assert losses(lines) == pytest.approx(losses(reference), abs=1e-5, rel=0), layout
        assert lines[0]["weights"]["fingerprint"] == reference[0]["weights"]["fingerprint"]


def test_the_loss_falls(single_rank: list[dict[str, Any]]) -> None:
    assert losses(single_rank)[-1] < losses(single_rank)[0] - 0.2
