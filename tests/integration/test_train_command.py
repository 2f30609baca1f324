"""`sibol train` as a user runs it: torchrun underneath, signals, exit codes, and joining ranks that are already there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_ext.config import to_yaml
from nemo_ext.engine.launch import CONTINUE_EXIT_CODE
from nemo_ext.engine.run_folder import RunFolder
from tests.support.training import exact, losses, read_metrics, small_run, train_on_ranks

REPOSITORY = Path(__file__).resolve().parents[2]
SIBOL = [sys.executable, "-m", "recipes.cli.main"]


def start(*command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until the run has logged `step`."""
    deadline = time.monotonic() + 240
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and any(line.get("loss") and line["step"] >= step for line in _complete_lines(metrics))):
        assert process.poll() is None and time.monotonic() < deadline, process.stdout and process.stdout.read()
        time.sleep(0.05)


def _complete_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_sigterm_on_two_ranks_saves_exits_75_and_the_same_command_finishes_bit_identical(dataset: Path, tmp_path: Path) -> None:
    settings = ["parallel.tp=2", "train.max_steps=40"]
    expected = train_on_ranks(2, small_run(tmp_path / "whole", dataset, *settings))
    recipe = tmp_path / "run.yaml"
    recipe.write_text(to_yaml(small_run(tmp_path / "run", dataset, *settings)))
    command = [*SIBOL, "train", str(recipe), "train.threads=1"]
    process = start(*command)
    wait_for_step(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == CONTINUE_EXIT_CODE, output
    (stopped,) = RunFolder(tmp_path / "run").steps()
    assert 3 <= stopped < 40
    process = start(*command)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert exact(read_metrics(tmp_path / "run")) == exact(expected)


def test_inside_torchrun_the_command_joins_the_ranks(dataset: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "run.yaml"
    recipe.write_text(to_yaml(small_run(tmp_path / "run", dataset, "train.max_steps=5", "train.threads=1", "schedule.warmup_steps=0")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = start(*torchrun, "-m", "recipes.cli.main", "train", str(recipe))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    lines = read_metrics(tmp_path / "run")
    assert lines[0]["ranks"] == 2 and len(losses(lines)) == 5


def test_dry_run_says_what_would_run_and_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    process = start(*SIBOL, "train", "course_10m", f"data.path={dataset}", f"output_dir={tmp_path / 'run'}", "--dry-run")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "2,000 x 32 x 512 = 32,768,000 tokens" in output and "vocabulary 512" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["parallel.tp=3"], "4 attention heads are not divisible by parallel.tp=3"),
        (["parallel.pp=3"], "4 layers are not divisible by parallel.pp=3"),
        (
            ["model.overrides={num_attention_heads: 6, num_key_value_heads: 3, head_dim: 16}", "parallel.tp=2"],
            "3 key/value heads can neither be split over nor be shared evenly by parallel.tp=2 ranks. Use one of: 1, 3, 6.",
        ),
        (["train.global_batch_size=3", "train.micro_batch_size=2"], "is not divisible by micro_batch_size"),
        (["model.overrides.hiden_size=3"], "has no such field. Did you mean 'hidden_size'?"),
        (["model.preset=tinny"], "has no preset 'tinny'. Did you mean 'tiny'"),
        (["model.family=qwem2"], "Unknown model family 'qwem2'. Did you mean 'qwen2'"),
        (["data.task=pretrian"], "Unknown task 'pretrian'. Did you mean 'pretrain'?"),
    ],
)
def test_what_cannot_run_is_refused_before_ranks_start(overrides: list[str], message: str, dataset: Path, tmp_path: Path) -> None:
    from nemo_ext.common.errors import ConfigError
    from nemo_ext.config import apply_overrides, data_parallel_size
    from nemo_ext.engine.resolve import resolve

    config = apply_overrides(small_run(tmp_path, dataset), overrides)
    ranks = config.parallel.tp * config.parallel.pp
    assert data_parallel_size(config, ranks) == 1
    with pytest.raises(ConfigError) as caught:
        resolve(config, ranks)
    assert message in str(caught.value)


def test_a_dataset_made_with_another_tokenizer_is_refused(dataset: Path, tmp_path: Path) -> None:
    from nemo_ext.common.errors import DataError
    from nemo_ext.config import apply_overrides
    from nemo_ext.engine.resolve import resolve
    from nemo_ext.models.family import FAMILIES
    from nemo_ext.tokenizers import train

    train(["another text altogether, for another tokenizer " * 50], 280, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(FAMILIES.get("qwen2").hf_config("tiny", {})))
    config = small_run(tmp_path / "run", dataset, "model.overrides={}", f"model.init_from={tmp_path / 'model'}")
    with pytest.raises(DataError, match=r"the same ids would mean different text"):
        resolve(apply_overrides(config, []), 1)


def test_a_truncated_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    import shutil

    from nemo_ext.common.errors import DataError
    from nemo_ext.engine.resolve import resolve

    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    content = (copy / "train.bin").read_bytes()
    (copy / "train.bin").write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"train\.bin is truncated: {len(content) - 1:,} bytes found, {len(content):,} expected"):
        resolve(small_run(tmp_path / "run", copy), 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system of a chosen size takes root")
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_ends_in_one_message_and_no_incomplete_checkpoint_is_visible(ranks: int, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)], check=True)
    try:
        recipe = tmp_path / "run.yaml"
        recipe.write_text(to_yaml(small_run(folder / "run", dataset, "train.max_steps=2", "schedule.warmup_steps=1", "train.threads=1")))
        process = start(*SIBOL, "train", str(recipe), "--ranks", str(ranks))
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 1
        assert "error: No space left while writing" in output.splitlines()[-1], output
        assert RunFolder(folder / "run").steps() == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)
