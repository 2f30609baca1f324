"""Where a run starts from: read once, proven to be in the model, carried along, and not needed any more."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import ConfigError, ConversionError
from nemo_ext.config import ModelConfig, RunConfig, apply_overrides, to_yaml
from nemo_ext.convert.export import export_run
from nemo_ext.convert.importing import import_model, plan_import
from nemo_ext.convert.load import source_fingerprint
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.engine.launch import free_port
from nemo_ext.engine.resolve import resolve, write_run_folder
from nemo_ext.engine.run_folder import RunFolder, training_here
from nemo_ext.models.family import family_of, read_model_config
from nemo_ext.tokenizers import load
from tests.support.ranks import RankError, run_ranks
from tests.support.tiny_models import QWEN2, write_random_hf_model
from tests.support.training import exact, losses, small_run, train_on_ranks

LICENCES = {"LICENSE": "you may", "NOTICE.txt": "thanks", "USE_POLICY.md": "be kind"}


def write_start(folder: Path, dataset: Path) -> Path:
    """A random model for the dataset's tokenizer, with licence files."""
    data = open_dataset(dataset)
    write_random_hf_model(folder, {**QWEN2, "num_hidden_layers": 4, "vocab_size": data.vocab_size})
    load(data.tokenizer_dir).copy(folder)
    for name, text in LICENCES.items():
        (folder / name).write_text(text)
    return folder


def run_from(start: Path, folder: Path, dataset: Path, *overrides: str) -> RunConfig:
    return replace(small_run(folder, dataset, "train.max_steps=4", *overrides), model=ModelConfig(init_from=str(start)))


def wait_for_rank_zero() -> str:
    """On a rank: get an answer that takes rank 0 longer than the run's own group of ranks would wait."""
    import time
    from datetime import timedelta

    import torch.distributed as dist

    from nemo_ext.engine.start_check import from_rank_zero, waiting_group

    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1), dist.group.WORLD)
    group = waiting_group()
    if dist.get_rank() == 0:
        time.sleep(2)
    answer = from_rank_zero("done" if dist.get_rank() == 0 else None, group)
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=60), dist.group.WORLD)
    return str(answer)


def test_ranks_wait_for_a_comparison_longer_than_for_one_another() -> None:
    assert run_ranks(2, wait_for_rank_zero) == ["done", "done"]


def test_a_run_folder_has_one_run_at_a_time(dataset: Path, tmp_path: Path) -> None:
    config = small_run(tmp_path / "run", dataset, "train.max_steps=4")
    with training_here(RunFolder(tmp_path / "run")), pytest.raises(RankError, match=r"is being trained by process \d+ on"):
        train_on_ranks(1, config)
    assert not (tmp_path / "run" / "run.yaml").exists()
    assert len(losses(train_on_ranks(1, config))) == 4


def test_a_resumed_run_needs_nothing_of_what_it_started_from(dataset: Path, tmp_path: Path) -> None:
    start = write_start(tmp_path / "hf", dataset)
    whole = train_on_ranks(1, run_from(start, tmp_path / "whole", dataset))
    train_on_ranks(1, run_from(start, tmp_path / "run", dataset, "train.stop_after_step=2"))
    shutil.rmtree(start)
    assert exact(train_on_ranks(1, run_from(start, tmp_path / "run", dataset))) == exact(whole)


def test_a_source_that_was_rewritten_does_not_change_a_resumed_run(dataset: Path, tmp_path: Path) -> None:
    start = write_start(tmp_path / "hf", dataset)
    config = run_from(start, tmp_path / "run", dataset)
    train_on_ranks(1, apply_overrides(config, ["train.stop_after_step=1"]))
    before = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    (start / "config.json").write_text(json.dumps({**before, "rms_norm_eps": 0.1}))
    assert resolve(config, 1).hf_config["rms_norm_eps"] == before["rms_norm_eps"]
    train_on_ranks(1, config)
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text()) == before


def test_licences_of_the_start_reach_the_run_and_its_export(dataset: Path, tmp_path: Path) -> None:
    train_on_ranks(1, run_from(write_start(tmp_path / "hf", dataset), tmp_path / "run", dataset))
    export_run(tmp_path / "run", tmp_path / "out", verify=False)
    for name, text in LICENCES.items():
        assert (tmp_path / "run" / "model" / name).read_text() == text
        assert (tmp_path / "out" / name).read_text() == text


def test_more_steps_over_several_epochs_are_refused_because_they_would_reorder_the_data(dataset: Path, tmp_path: Path) -> None:
    config = small_run(tmp_path, dataset)
    checkpoint = RunFolder(tmp_path).checkpoint(5)
    checkpoint.mkdir(parents=True)
    state = {"schema": "sibol.checkpoint/1", "step": 5, "max_steps": 20, "dataset_fingerprint": open_dataset(dataset).fingerprint}
    (checkpoint / "state.json").write_text(json.dumps(state))
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    fresh = resolve(small_run(tmp_path / "other", dataset), 1)
    write_run_folder(fresh)
    shutil.copytree(tmp_path / "other" / "model", tmp_path / "model")
    epoch = open_dataset(dataset).splits["train"].tokens // (32 * 4)
    assert resolve(apply_overrides(config, [f"train.max_steps={epoch - epoch // 50}"]), 1).resume_from == checkpoint
    with pytest.raises(ConfigError, match=r"of 20 steps, .*order of the data depends on the number of steps.*Keep train.max_steps=20"):
        resolve(apply_overrides(config, [f"train.max_steps={epoch + 1}"]), 1)


@pytest.fixture(scope="module")
def start(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start that tests only read."""
    return write_start(tmp_path_factory.mktemp("start") / "hf", dataset)


@pytest.mark.parametrize(("ranks", "layout"), [(1, []), (2, ["parallel.tp=2"]), (2, ["parallel.pp=2"])], ids=["one rank", "tp2", "pp2"])
def test_before_the_first_step_weights_and_loss_are_those_of_the_source(
    ranks: int, layout: list[str], start: Path, dataset: Path, tmp_path: Path
) -> None:
    checked = train_on_ranks(ranks, run_from(start, tmp_path / "run", dataset, *layout))
    rules = family_of(read_model_config(start)).build_mapping(read_model_config(start))
    source = HuggingFaceWeights(start, rules)
    assert checked[0]["weights"]["fingerprint"] == source_fingerprint(rules, 4, source)
    assert checked[0]["weights"]["conversions"].keys() == {"F32 as float32"}
    loss = checked[0]["start_loss"]
    assert loss["megatron"] == pytest.approx(loss["hugging_face"], abs=1e-5) and loss["tokens"] == 32
    if ranks == 1:  # four micro batches of one sequence: the first step's loss is their mean, so theirs cannot be far from it
        assert loss["megatron"] == pytest.approx(checked[1]["loss"], abs=0.5)
        config = run_from(start, tmp_path / "unchecked", dataset)
        unchecked = train_on_ranks(1, apply_overrides(config, ["model.compare_start=never"]))
        assert unchecked[0]["start_loss"] == {"skipped": "model.compare_start=never"}
        assert exact(unchecked) == exact(checked)


def test_an_imported_checkpoint_starts_the_run_that_its_source_starts(start: Path, dataset: Path, tmp_path: Path) -> None:
    source = shutil.copytree(start, tmp_path / "hf")
    import_model(plan_import(source, file_bytes=100_000), tmp_path / "ckpt", verify=False)
    expected = train_on_ranks(2, run_from(source, tmp_path / "one", dataset, "parallel.tp=2"))
    found = train_on_ranks(2, run_from(tmp_path / "ckpt", tmp_path / "two", dataset, "parallel.tp=2"))
    assert exact(found) == exact(expected)
    assert found[0]["start_loss"] == expected[0]["start_loss"]
    assert (tmp_path / "two" / "model" / "LICENSE").read_text() == LICENCES["LICENSE"]
    shutil.rmtree(source)
    alone = train_on_ranks(2, run_from(tmp_path / "ckpt", tmp_path / "three", dataset, "parallel.pp=2"))
    assert "is not there any more" in alone[0]["start_loss"]["skipped"]
    assert alone[0]["weights"]["fingerprint"] == found[0]["weights"]["fingerprint"]


def test_a_checkpoint_that_was_changed_since_its_import_is_refused(start: Path, dataset: Path, tmp_path: Path) -> None:
    import_model(plan_import(start), tmp_path / "ckpt", verify=False)
    file = tmp_path / "ckpt" / "weights" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[4000] ^= 1
    file.write_bytes(content)
    with pytest.raises(RankError, match=r"The checkpoint was changed or damaged since; import it again"):
        train_on_ranks(1, run_from(tmp_path / "ckpt", tmp_path / "run", dataset))


def train_tampered(settings: str, port: int, what: str) -> str:
    """Train with a callback that changes the model before training starts; returns the refusal."""
    import os

    import lightning.pytorch as pl
    import torch
    import yaml

    from nemo_ext.config import from_yaml
    from nemo_ext.engine.train import train

    class Tamper(pl.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            model = trainer.strategy.megatron_parallel[0]
            if what == "weight" and trainer.global_rank == 1:
                with torch.no_grad():
                    next(iter(parameter for name, parameter in model.named_parameters() if "linear_fc1.weight" in name))[0, 0] += 1e-3
            if what == "computation":
                for name, module in model.named_modules():
                    if name.endswith("linear_fc2"):
                        module.register_forward_hook(lambda module, inputs, output: (output[0] * 1.5, output[1]))

    torch.distributed.destroy_process_group()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    path = Path(yaml.safe_load(settings)["output_dir"]).with_suffix(f".{os.environ['RANK']}.yaml")
    path.write_text(settings)
    try:
        train(from_yaml(path), int(os.environ["WORLD_SIZE"]), [Tamper()])
    except ConversionError as error:
        torch.distributed.destroy_process_group()
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)  # for the harness to close
        return str(error)
    return "trained"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("weight", "1 tensor(s) of the model are not those of"),
        ("computation", "Hugging Face's model has"),
    ],
)
def test_a_model_that_is_not_its_source_is_refused_on_every_rank(
    what: str, message: str, start: Path, dataset: Path, tmp_path: Path
) -> None:
    config = run_from(start, tmp_path / "run", dataset, "parallel.tp=2")
    for answer in run_ranks(2, train_tampered, to_yaml(config), free_port(), what):
        assert message in answer
    assert not RunFolder(config.output_dir).steps()
