"""What the throughput suite times: the batches of each protocol, the figures made of seconds, and memory that runs out."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.suites.throughput_summary import seconds_per, summarise
from evaluation.suites.throughput_sweep import Sweep
from evaluation.suites.throughput_timing import LOADER_ONLY, PROTOCOLS, Cell, Feed, Plan, best, time_protocol
from tests.support.tiny_language_models import train_tokenizer

CPU = torch.device("cpu")
LENGTHS = [3, 17, 8, 40, 1, 9, 25, 16, 30, 2]
PLAN = Plan(repeats=3, warmup=1, bfloat16=False, seed=7)


@pytest.fixture(scope="module")
def feed() -> Feed:
    tokenizer = train_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return Feed([[number + 1] * length for number, length in enumerate(LENGTHS)], tokenizer, seed=7)


class Hungry(torch.nn.Module):
    """Asks the allocator for more memory than there is when a batch has more than `rows` rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.passes: list[int] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(input_ids))
        return torch.empty(1 << 50) if len(input_ids) > self.rows else attention_mask.sum()


def rows_of(batches: list[dict[str, torch.Tensor]]) -> list[int]:
    """The first token of each row, which names its text."""
    return [int(row[0]) for batch in batches for row in batch["input_ids"]]


def test_every_protocol_sees_every_text_once_and_pads_to_a_multiple_of_8(feed: Feed) -> None:
    for protocol in PROTOCOLS:
        batches = feed.batches(4, protocol)
        assert sorted(rows_of(batches)) == list(range(1, 11))
        assert [len(batch["input_ids"]) for batch in batches] == [4, 4, 2]
        assert all(batch["input_ids"].shape[1] % 8 == 0 for batch in batches)
        assert sum(int(batch["attention_mask"].sum()) for batch in batches) == sum(LENGTHS)


def test_the_loader_free_batches_are_the_loaders_and_the_sorted_ones_have_less_padding(feed: Feed) -> None:
    loaded, free = list(feed.loader(4)), feed.batches(4, "loader_free")
    assert rows_of(loaded) == rows_of(free) != list(range(1, 11))
    assert [LENGTHS[number - 1] for number in rows_of(feed.batches(4, "sorted"))] == sorted(LENGTHS, reverse=True)
    cells = [time_protocol(Hungry(100), CPU, feed, protocol, 4, PLAN) for protocol in PROTOCOLS]
    assert [cell.tokens for cell in cells] == [sum(LENGTHS)] * 3
    assert cells[0].positions == cells[1].positions > cells[2].positions
    assert cells[2].positions == 4 * 40 + 4 * 16 + 2 * 8
    assert cells[2].padding_share == pytest.approx(1 - sum(LENGTHS) / 240)


def test_warm_up_passes_are_run_but_not_counted(feed: Feed) -> None:
    network = Hungry(100)
    cell = time_protocol(network, CPU, feed, "docket", 5, PLAN)
    assert network.passes == [5, 5] * 4
    assert len(cell.seconds) == 3 and cell.first_s is not None and cell.first_s not in cell.seconds


def test_memory_that_runs_out_is_a_cell_without_seconds_and_any_other_failure_is_raised(feed: Feed) -> None:
    assert time_protocol(Hungry(4), CPU, feed, "docket", 4, PLAN).seconds
    cell = time_protocol(Hungry(4), CPU, feed, "loader_free", 5, PLAN)
    assert (cell.seconds, cell.first_s, cell.texts, cell.tokens) == ((), None, 10, sum(LENGTHS))
    with pytest.raises(RuntimeError, match="must match"):
        time_protocol(lambda input_ids, attention_mask: input_ids[:, :3] + input_ids[:, :5], CPU, feed, "docket", 4, PLAN)


def test_numbers_are_bfloat16_only_where_that_is_asked_for(feed: Feed) -> None:
    class Layer(torch.nn.Linear):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            kinds.append(super().forward(attention_mask[:, :2].float()).dtype)
            return attention_mask

    kinds: list[torch.dtype] = []
    for bfloat16 in (False, True):
        time_protocol(Layer(2, 2), CPU, feed, "sorted", 10, Plan(repeats=1, warmup=0, bfloat16=bfloat16, seed=7))
    assert kinds == [torch.float32, torch.bfloat16]


def cell(protocol: str, batch_size: int, *seconds: float, device: str = "cuda", texts: int = 50) -> Cell:
    return Cell(device, protocol, batch_size, texts, seconds, 9.0 if seconds else None, tokens=600, positions=800)


def sweep(slower: float = 1.0, **changes: Any) -> Sweep:
    cells = [cell("docket", 8, 4.0, 5.0, 6.0), cell("docket", 16, 2.0 * slower, 3.0 * slower, 2.5 * slower), cell("docket", 32)]
    cells += [cell("loader_free", 8, 1.0, 1.1, 1.2), cell("sorted", 8, 0.5, 0.5, 0.6), cell(LOADER_ONLY, 16, 1.5, 1.4, 1.6)]
    cells += [cell(protocol, 32, 7.0, 8.0, 7.5, device="cpu") for protocol in PROTOCOLS]
    given: dict[str, Any] = {"texts": 50, "truncated": 0, "max_tokens": 64, "left_out": (), "attention": {"cuda": "sdpa", "cpu": "eager"}}
    return Sweep("cuda", cells, **(given | changes))


def test_a_figure_is_the_median_of_the_fastest_batch_size_scaled_with_the_range_of_its_passes() -> None:
    summary = summarise([sweep()])
    assert summary.metrics["seconds_per_100k_texts"].as_dict() == {"value": 5000.0, "low": 4000.0, "high": 6000.0}
    assert summary.metrics["loader_free_seconds_per_100k_texts"].value == pytest.approx(2200.0)
    assert summary.metrics["sorted_seconds_per_100k_texts"].value == pytest.approx(1000.0)
    assert summary.metrics["cpu_seconds_per_200_texts"].as_dict() == {"value": 30.0, "low": 28.0, "high": 32.0}
    assert summary.metrics["tokens_per_s"].value == 1200.0 and summary.metrics["padding_share"].value == 0.25
    assert summary.references == {"loader_only": {"seconds_per_100k_texts": seconds_per(100_000, cell(LOADER_ONLY, 16, 1.5, 1.4, 1.6))}}
    assert seconds_per(200, cell("docket", 8, 2.0)).as_dict() == {"value": 8.0, "low": None, "high": None}
    assert best([cell("docket", 8)], "docket") is None


def test_a_difference_from_the_baseline_has_the_ends_of_the_least_alike_passes() -> None:
    change = summarise([sweep(slower=2.0), sweep()]).comparison
    assert change is not None
    # 4 to 6 s (median 5) against 2 to 3 s (median 2.5), in units of 2,000 per second
    assert change["seconds_per_100k_texts"].as_dict() == {"value": 5000.0, "low": 2000.0, "high": 8000.0}
    assert change["relative_time"].as_dict() == pytest.approx({"value": 1.0, "low": 4 / 3 - 1, "high": 2.0})


def test_rows_and_warnings_say_what_did_not_run_as_asked(tmp_path: Path) -> None:
    summary = summarise([sweep(truncated=3, left_out=(64, 128)), sweep()])
    rows = {row["id"]: row for row in summary.rows}
    assert len(rows) == 9 and rows["cuda/docket/32"]["out_of_memory"] and "seconds_per_100k_texts" not in rows["cuda/docket/32"]
    assert rows["cuda/docket/16"]["baseline_seconds_per_100k_texts"] == 2000 * statistics.median([2, 3, 2.5])
    assert "3 of 50 texts were cut at 64 tokens for the model." in summary.warnings
    assert "Batch sizes 64, 128 exceed the 50 texts and were left out (model)." in summary.warnings
    assert "The baseline ran out of memory at cuda/docket/32." in summary.warnings
    assert not any("not quiet" in warning for warning in summary.warnings)
    assert summary.files["throughput.png"].startswith(b"\x89PNG")
