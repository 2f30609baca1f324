"""Masked language modelling on real ranks: losses that layouts, loader processes, kills and exports do not change."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_ext.common.blend import open_blend
from nemo_ext.common.errors import ConfigError
from nemo_ext.common.files import read_json
from nemo_ext.config import ModelConfig, apply_overrides, from_yaml
from nemo_ext.convert.export import export_run
from nemo_ext.convert.slicing import choose_layers, slice_layers
from nemo_ext.engine.resolve import resolve
from nemo_ext.engine.run_folder import RunFolder, read_state
from nemo_ext.models.family import FAMILIES
from nemo_ext.tokenizers import load
from recipes import load_recipe
from tests.support.masked_runs import MODELS, PACKED, masked_run
from tests.support.ranks import RankError, run_ranks
from tests.support.tiny_models import write_random_hf_model
from tests.support.training import exact, losses, train_on_ranks

TP2 = ["parallel.tp=2", "parallel.sequence_parallel=true"]
UNEVEN = ["train.micro_batch_size=2"]  # and, on two ranks, two micro batches each: all with other numbers of masked tokens


@pytest.mark.parametrize(
    ("family", "packing", "layouts"),
    [
        ("bert", [], {"dp2": UNEVEN}),
        ("modernbert", [], {"dp2": UNEVEN, "tp2": TP2}),
        ("modernbert", PACKED, {"dp2": [], "pp2": ["parallel.pp=2"]}),
    ],
    ids=["bert", "padded", "packed"],
)
def test_layouts_have_the_losses_of_one_rank(
    family: str, packing: list[str], layouts: dict[str, list[str]], masked_datasets: dict[str, Path], tmp_path: Path
) -> None:
    dataset = masked_datasets[family]
    expected = train_on_ranks(1, masked_run(tmp_path / "one", dataset, *packing, family=family))
    vocabulary = open_blend({str(dataset): 1.0}).vocab_size
    assert abs(losses(expected)[0] - math.log(vocabulary)) < 0.2 and losses(expected)[-1] < losses(expected)[0] - 0.3
    for name, layout in layouts.items():
        found = train_on_ranks(2, masked_run(tmp_path / name, dataset, *packing, *layout, family=family))
        for figure in ("loss", "validation_loss"):
            assert series(found, figure) == pytest.approx(series(expected, figure), abs=1e-5, rel=0), (name, figure)
        assert series(found, "grad_norm") == pytest.approx(series(expected, "grad_norm"), rel=1e-4), name
        assert series(found, "consumed_tokens") == series(expected, "consumed_tokens"), name


def series(lines: list[dict[str, Any]], figure: str) -> list[float]:
    """One figure in order of steps."""
    return [line[figure] for line in lines if figure in line]


def test_a_killed_and_resumed_packed_run_ends_bit_identical_with_any_loader(masked_datasets: dict[str, Path], tmp_path: Path) -> None:
    settings = [*PACKED, "train.max_steps=8", "checkpoint.every_steps=3", "validation.every_steps=4", "data.masking.whole_words=true"]
    expected = train_on_ranks(2, masked_run(tmp_path / "whole", masked_datasets["modernbert"], *settings, "data.num_workers=1"))
    killed = masked_run(tmp_path / "killed", masked_datasets["modernbert"], *settings)
    with pytest.raises(RankError):
        train_on_ranks(2, killed, kill=("step", 5))
    resumed = train_on_ranks(2, killed)
    assert exact(resumed) == exact(expected)
    assert series(resumed, "consumed_tokens") == series(expected, "consumed_tokens")
    assert len(series(resumed, "validation_loss")) == 2 and not series(resumed, "validation_bits_per_byte")


@pytest.mark.parametrize(("family", "packing"), [("bert", []), ("modernbert", PACKED)], ids=["bert", "modernbert packed"])
def test_an_export_has_the_masked_loss_of_training_in_transformers(
    family: str, packing: list[str], masked_datasets: dict[str, Path], tmp_path: Path
) -> None:
    config = masked_run(tmp_path / "run", masked_datasets[family], *packing, "train.max_steps=4", family=family)
    lines = train_on_ranks(1, config)
    report = export_run(tmp_path / "run", tmp_path / "out")
    assert report.verification is not None and report.verification["max_abs_difference"] < 1e-5
    state = read_state(RunFolder(tmp_path / "run").checkpoint(4))
    assert state["consumed_tokens"] == series(lines, "consumed_tokens")[-1] < 4 * 8 * config.train.seq_length
    loss, own_mask_id = run_ranks(1, loss_in_transformers, tmp_path / "run", tmp_path / "out")[0]
    assert loss == pytest.approx(series(lines, "validation_loss")[-1], abs=1e-5)
    exported = read_json(tmp_path / "out" / "config.json")
    special = open_blend({str(masked_datasets[family]): 1.0})
    assert exported["pad_token_id"] not in (None, own_mask_id) and exported["vocab_size"] == special.vocab_size


def loss_in_transformers(run: Path, folder: Path) -> tuple[float, int]:
    """The masked loss of the batches that the run's last validation saw, piece by piece through transformers; and its mask token."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from nemo_ext.tasks.mlm import MaskedData

    config = from_yaml(run / "run.yaml")
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    data = MaskedData(config, open_blend({config.data.path: 1.0}), run / "index_cache")
    data.setup()
    total, count = 0.0, 0
    for number in range(config.validation.batches * config.train.global_batch_size):
        row = data._validation[number]
        for start, end in zip(row["starts"], [*row["starts"][1:], len(row["shown"])], strict=True):
            shown, labels = (torch.from_numpy(row[name][None, start:end]) for name in ("shown", "labels"))
            assert int(shown[0, 0]) == tokenizer.cls_token_id and int(shown[0, -1]) == tokenizer.sep_token_id
            with torch.no_grad():
                logits = model(input_ids=shown).logits[0]
            total += float(torch.nn.functional.cross_entropy(logits, labels[0], reduction="sum"))
            count += int((labels != -100).sum())
    return total / count, tokenizer.mask_token_id


@pytest.mark.parametrize(
    ("family", "packing", "layout"),
    [("bert", [], []), ("modernbert", ["train.micro_batch_size=4"], TP2), ("modernbert", PACKED, ["parallel.pp=2"])],
    ids=["bert", "padded tp2", "packed pp2"],
)
def test_before_the_first_step_the_masked_loss_is_that_of_transformers(
    family: str, packing: list[str], layout: list[str], masked_datasets: dict[str, Path], tmp_path: Path
) -> None:
    dataset = open_blend({str(masked_datasets[family]): 1.0})
    sizes = {**yaml.safe_load(MODELS[family]), "vocab_size": dataset.vocab_size, "pad_token_id": 0}
    write_random_hf_model(tmp_path / "hf", FAMILIES.get(family).hf_config("base", sizes))
    load(dataset.tokenizer_dir).copy(tmp_path / "hf")
    run = masked_run(tmp_path / "run", masked_datasets[family], "train.max_steps=4", *packing, *layout)
    lines = train_on_ranks(2 if layout else 1, replace(run, model=ModelConfig(init_from=str(tmp_path / "hf"))))
    loss = lines[0]["start_loss"]
    assert loss["megatron"] == pytest.approx(loss["hugging_face"], abs=1e-5) and loss["tokens"] > 0


def test_the_recipe_of_a_sliced_model_starts_from_it_and_from_no_other(masked_datasets: dict[str, Path], tmp_path: Path) -> None:
    dataset = open_blend({str(masked_datasets["modernbert"]): 1.0})
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": dataset.vocab_size, "pad_token_id": 0}
    write_random_hf_model(tmp_path / "large", FAMILIES.get("modernbert").hf_config("large", sizes))
    load(dataset.tokenizer_dir).copy(tmp_path / "large")
    slice_layers(tmp_path / "large", tmp_path / "sliced", choose_layers(28, None, None, 3))
    settings = [f"data.path={masked_datasets['modernbert']}", f"output_dir={tmp_path / 'run'}"]
    recipe = apply_overrides(load_recipe("docket_sliced_10l"), [*settings, f"model.init_from={tmp_path / 'sliced'}"])
    assert resolve(recipe, ranks=1).hf_config["num_hidden_layers"] == 10
    whole = apply_overrides(recipe, [f"model.init_from={tmp_path / 'large'}"])
    with pytest.raises(
        ConfigError, match=r"cannot change a model .* num_hidden_layers is 28, not 10; global_attn_every_n_layers is 3, not 1"
    ):
        resolve(whole, ranks=1)


REFUSALS = {
    "micro batches of packed rows": ([*PACKED, "train.micro_batch_size=2"], r"packing=true needs train.micro_batch_size=1, found 2"),
    "a decoder": (["model.family=qwen2", "model.overrides={}"], r"'mlm' trains masked language models, but family 'qwen2' is a causal one"),
    "an encoder that is to go on": (["data.task=pretrain"], r"'pretrain' trains causal language models, but family 'modernbert'"),
    "packing for another task": ([*PACKED, "data.task=pretrain"], r"'pretrain' does not go by data.packing, data.piece_tokens"),
    "pieces longer than rows": (["data.piece_tokens=40"], r"piece_tokens=40 do not fit into train.seq_length=32"),
    "no room beside the template": (["data.piece_tokens=2"], r"piece_tokens=2 leaves no room for text: .* 2 tokens around each piece"),
    "a rate above 1": (["data.masking.rate=15"], r"data.masking.rate=15.* Expected more than 0 and at most 1"),
    "a rate of 0": (["data.masking.validation_rate=0"], r"validation_rate=0.* Expected more than 0"),
    "shares above 1": (["data.masking.random_share=0.3"], r"mask_share=0.8 \+ random_share=0.3 exceed 1"),
    "context parallelism": (["parallel.cp=2"], r"parallel.cp=2: data.task=mlm does not split sequences"),
    "a plugin in training": (
        ["data.plugin=stochastok", "data.plugin_mode=online"],
        r"data.plugin_mode=online is for tasks that predict the next",
    ),
    "pieces beyond a model's positions": (
        ["data.piece_tokens=30", "model.overrides.max_position_embeddings=16"],
        r"data.piece_tokens=30 exceeds the model's max_position_embeddings=16",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_masking_cannot_do_is_refused_before_ranks_start(case: str, masked_datasets: dict[str, Path], tmp_path: Path) -> None:
    settings, message = REFUSALS[case]
    config = masked_run(tmp_path, masked_datasets["modernbert"], *settings)
    with pytest.raises(ConfigError, match=message):
        resolve(config, ranks=config.parallel.cp)


def test_a_tokenizer_without_a_mask_token_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a tokenizer with a mask token"):
        resolve(masked_run(tmp_path, dataset), ranks=1)
