"""The harness that distributed tests stand on: real ranks, honest failures."""

from __future__ import annotations

import os
import time

import pytest
import torch

from tests.support.ranks import RankError, run_ranks


def summed_rank(offset: int) -> tuple[int, torch.Tensor]:
    total = torch.tensor(float(torch.distributed.get_rank() + offset))
    torch.distributed.all_reduce(total)
    return torch.distributed.get_rank(), total


def fail_on_rank_one() -> None:
    if torch.distributed.get_rank() == 1:
        raise ValueError("rank one is unhappy")
    torch.distributed.barrier()


def sleep_for_ever() -> None:
    time.sleep(600)


def die() -> None:
    os._exit(7)


def test_results_come_back_by_rank_and_collectives_work():
    results = run_ranks(2, summed_rank, 10)
    assert [rank for rank, _ in results] == [0, 1]
    assert all(total == 21.0 for _, total in results)


def test_a_failing_rank_is_named_with_its_traceback():
    with pytest.raises(RankError, match=r"(?s)rank 1 of 2.*rank one is unhappy"):
        run_ranks(2, fail_on_rank_one)


def test_ranks_that_hang_are_ended_and_their_stacks_shown():
    with pytest.raises(RankError, match=r"(?s)took longer than 2 s.*sleep_for_ever"):
        run_ranks(1, sleep_for_ever, timeout_s=2)


def test_a_rank_that_dies_is_reported_with_its_exit_code():
    with pytest.raises(RankError, match="exit code 7"):
        run_ranks(1, die)
