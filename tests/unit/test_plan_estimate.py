"""Plans: published sizes, the 72B case, speed and time by hand, and what a plan refuses or points out."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.plan.architecture import Architecture, read_architecture
from jobs.plan.duration import MARGIN_S, SAVE_BYTES_PER_S_AND_NODE, START_S, Stated
from jobs.plan.estimate import Plan, make_plan
from jobs.plan.resources import resources
from jobs.plan.search import nearest_fitting, search
from jobs.plan.speed import DEFAULT_MFU, operations
from jobs.plan.storage import checkpoint_bytes, exported_parameters
from jobs.site import load_site
from nemo_ext.common.errors import ConfigError
from nemo_ext.config import RunConfig, apply_overrides
from nemo_ext.models.family import FAMILIES
from recipes import RECIPES, load_recipe

# From the models' cards or the arithmetic of their published weights, tied embeddings counted once.
PUBLISHED = {
    ("qwen2", "0.5b"): 494_032_768,
    ("qwen2", "14b"): 14_770_033_664,
    ("qwen2", "72b"): 72_706_203_648,
    ("gemma3", "1b"): 999_885_952,
    ("gpt2", "gpt2"): 124_439_808,
}


def architecture(family: str, preset: str) -> Architecture:
    found = FAMILIES.get(family)
    return read_architecture(found, found.normal_form(found.hf_config(preset, {})))


def plan(recipe: str, *overrides: str, site: str = "nibi", nodes: int | None = None, stated: Stated | None = None, **options: Any) -> Plan:
    config = apply_overrides(load_recipe(recipe), list(overrides))
    asked = resources(config, load_site(site), nodes, options.get("gpus"), options.get("walltime_s"), options.get("price"))
    return make_plan(config, asked, stated or Stated())


@pytest.mark.parametrize(("family", "preset"), PUBLISHED)
def test_parameters_of_published_models(family: str, preset: str) -> None:
    assert exported_parameters(architecture(family, preset)) == PUBLISHED[family, preset]


@given(
    tp=st.sampled_from([1, 2, 4]),
    pp=st.sampled_from([1, 2, 4]),
    model=st.sampled_from([("qwen3", "0.6b"), ("qwen2", "7b"), ("gpt2", "tiny")]),
)
def test_ranks_hold_every_parameter_once_and_tied_embeddings_on_both_ends(tp: int, pp: int, model: tuple[str, str]) -> None:
    whole = architecture(*model)
    split = {tensor.key for tensor in whole.tensors if tensor.local_shapes(tp) != [tensor.shape]}
    on_ranks = sum(prod(shape) * (tp if key in split else 1) for stage in range(pp) for key, shape in whole.on_rank(stage, tp, pp))
    twice = prod(whole.tensors[0].shape) if whole.tied and pp > 1 else 0
    assert on_ranks == whole.parameters + twice


def test_72_billion_parameters_with_adam_do_not_fit_one_node_of_8_gpus_of_80_gb() -> None:
    one_node = plan("early_modern_72b", "parallel.pp=1", nodes=1)
    assert 16 * one_node.architecture.parameters == pytest.approx(1.15e12, rel=0.02)  # the usual estimate, with bf16 gradients
    held = one_node.memory[0].state_bytes * one_node.asked.gpus
    assert held == pytest.approx(18 * one_node.architecture.parameters, rel=0.001)  # ours are summed in fp32
    assert not one_node.fits and "Stage 0 needs" in one_node.problems[0]
    assert "With the optimizer's state in host memory" in one_node.notes[0] and "which would fit" in one_node.notes[0]
    nearest = nearest_fitting(one_node, Stated())
    assert nearest is not None and nearest.plan.fits
    assert (nearest.plan.asked.nodes, nearest.changes) == (4, ("parallel.pp=2",))
    assert plan("early_modern_72b").fits


def test_without_a_distributed_optimizer_every_rank_has_the_whole_state() -> None:
    split, whole = (plan("course_100m", f"parallel.distributed_optimizer={value}", nodes=1).memory[0] for value in ("true", "false"))
    assert whole.optimizer_bytes == 12 * whole.parameters
    assert split.optimizer_bytes == pytest.approx(whole.optimizer_bytes / 8, rel=0.001)


def test_operations_are_six_for_each_weight_of_a_matrix_and_token_and_those_of_attention() -> None:
    model = architecture("qwen2", "7b")
    matrices = sum(prod(shape) for key, shape in model.on_rank(0, 1, 1) if len(shape) == 2 and key != "embedding.word_embeddings.weight")
    short, long = (replace(plan("continue_pretraining").layout, seq_length=length) for length in (1, 4096))
    assert operations(model, short).model == pytest.approx(6 * matrices, rel=1e-4)
    attention = operations(model, long).model - operations(model, short).model
    assert attention == pytest.approx(6 * 4096 * 28 * 3584, rel=1e-3)  # 12 layers x hidden x length, of which causality leaves half


def test_windows_bound_attention() -> None:
    gemma = architecture("gemma3", "1b")  # 22 of 26 layers see 512 tokens
    layout = replace(plan("continue_pretraining").layout, seq_length=32768)
    assert operations(gemma, layout).attention < 0.2 * 4 * 1024 * 26 * 32768 / 2


def test_a_stated_mfu_is_kept_and_gives_the_step_by_division() -> None:
    planned = plan("survey_14b_pretraining", stated=Stated(mfu=0.35))
    assert planned.speed is not None
    tokens = 128 * 2048
    assert planned.speed.mfu == pytest.approx(0.35)
    assert planned.speed.step_s == pytest.approx(tokens * operations(planned.architecture, planned.layout).model / (0.35 * 989e12 * 8))
    measured = plan("survey_14b_pretraining", stated=Stated(tokens_per_s=1000.0))
    assert measured.speed is not None and measured.speed.step_s == pytest.approx(tokens / 1000)


def test_an_estimated_mfu_pays_for_recomputation_pipeline_bubble_and_exchange() -> None:
    def mfu(*overrides: str) -> float:
        found = plan("continue_pretraining", "train.micro_batch_size=1", *overrides, nodes=1).speed
        assert found is not None and found.mfu is not None
        return found.mfu

    base = mfu()
    assert base == pytest.approx(DEFAULT_MFU)
    assert mfu("train.recompute=full") < mfu("train.recompute=selective") < base
    assert mfu("parallel.pp=4") == pytest.approx(base * 128 / (128 + 3))  # micro batches over micro batches and waits
    assert mfu("parallel.tp=2", "parallel.sequence_parallel=true") < base


def test_wall_time_jobs_hours_and_money_by_hand() -> None:
    overrides = ("train.max_steps=1000", "validation.batches=0", "checkpoint.every_minutes=null", "checkpoint.every_steps=100")
    stated, day_s = Stated(tokens_per_s=128 * 2048 / 360), 24 * 3600  # six minutes a step: 100 hours
    planned = plan("survey_14b_pretraining", *overrides, stated=stated, walltime_s=day_s, price=2.5)
    time = planned.duration
    assert time is not None
    save_s = checkpoint_bytes(planned.architecture, planned.layout) / SAVE_BYTES_PER_S_AND_NODE
    assert checkpoint_bytes(planned.architecture, planned.layout) == 14 * planned.architecture.parameters
    assert time.training_s == pytest.approx(360_000) and time.validation_s == 0
    assert time.jobs == -(-(360_000 + 10 * save_s) // (day_s - START_S - MARGIN_S - save_s)) == 5
    assert time.saves == 15
    assert time.wall_s == pytest.approx(360_000 + 15 * save_s + 5 * START_S)
    assert time.gpu_hours == pytest.approx(8 * time.wall_s / 3600)
    assert time.price_usd == pytest.approx(2.5 * time.gpu_hours)
    assert planned.storage.checkpoints_kept == 3
    assert planned.storage.dataset_bytes == 4 * 1000 * 128 * 2048  # a vocabulary of 152,064 needs four bytes a token


def test_a_walltime_too_short_to_train_in_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"A job of 1500 s has no time to train"):
        plan("early_modern_72b", walltime_s=1500)
    with pytest.raises(ConfigError, match=r"grants at most 168:00:00"):
        plan("early_modern_72b", walltime_s=10**6)


def test_more_than_the_site_has_is_a_problem() -> None:
    assert "37 nodes are asked for; site nibi has 36" in plan("course_100m", "train.global_batch_size=4736", nodes=37).problems[0]
    with pytest.raises(ConfigError, match=r"--gpus-per-node 5: a node of site fir has 4 GPUs"):
        plan("course_100m", site="fir", gpus=5)
    assert "tp=8 spans nodes of 4 GPUs" in plan("survey_14b_pretraining", site="fir", nodes=2).problems[0]


def test_settings_that_training_would_refuse_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"28 attention heads are not divisible by parallel.tp=8"):
        plan("survey_14b_pretraining", "model.preset=7b")
    with pytest.raises(ConfigError, match=r"train.global_batch_size=128 is not divisible"):
        plan("course_100m", nodes=3)


def test_a_site_without_gpus_plans_memory_and_says_what_it_cannot() -> None:
    planned = plan("demo", site="local")
    assert planned.fits and planned.speed is None and "State --tokens-per-s" in planned.notes[0]
    timed = plan("demo", site="local", stated=Stated(tokens_per_s=4096.0))
    assert timed.duration is not None and timed.duration.training_s == pytest.approx(140) and timed.duration.gpu_hours == 0
    with pytest.raises(ConfigError, match=r"has no GPU whose peak is known"):
        plan("demo", site="local", stated=Stated(mfu=0.4))
    with pytest.raises(ConfigError, match=r"Layouts are compared on GPUs"):
        search(planned, Stated())


def test_search_ranks_layouts_that_fit_and_names_the_settings_that_make_them() -> None:
    planned = plan("survey_14b_pretraining", nodes=1)
    found = search(planned, Stated())
    assert found and all(layout.plan.fits for layout in found)
    speeds = [layout.step_s for layout in found]
    assert speeds == pytest.approx(sorted(speeds), rel=0.01)
    best = found[0]
    again = plan("survey_14b_pretraining", *best.changes, nodes=1)
    assert again.layout == best.plan.layout and again.speed == best.plan.speed
    assert () in [layout.changes for layout in found]  # the recipe's own
    slower = search(plan("survey_14b_pretraining", nodes=1, stated=Stated(mfu=0.1)), Stated(mfu=0.1))
    before, after = ({layout.changes: layout.step_s for layout in layouts} for layouts in (found, slower))
    assert after == pytest.approx({changes: step_s * after[()] / before[()] for changes, step_s in before.items()})
    own = next(layout for layout in slower if not layout.changes)
    assert own.plan.speed is not None and own.plan.speed.mfu == pytest.approx(0.1)


def test_search_proposes_nothing_that_the_task_refuses() -> None:
    packed = search(plan("docket_packed", nodes=1, gpus=4), Stated())
    assert packed and all(layout.plan.config.train.micro_batch_size == 1 for layout in packed)
    padded = search(plan("docket_base", nodes=1, gpus=4), Stated())
    assert any(layout.plan.config.train.micro_batch_size > 1 for layout in padded)
    with pytest.raises(ConfigError, match=r"parallel.cp=2: data.task=mlm does not split sequences"):
        plan("docket_base", "parallel.cp=2", nodes=1)


def test_a_run_that_no_site_holds_has_no_nearest_layout() -> None:
    planned = plan("early_modern_72b", "parallel.pp=1", nodes=1)
    small = replace(planned.asked, site=replace(planned.asked.site, node=replace(planned.asked.site.node, count=1)))
    assert nearest_fitting(replace(planned, asked=small), Stated()) is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_can_be_planned(recipe: str) -> None:
    config: RunConfig = load_recipe(recipe)
    planned = make_plan(config, resources(config, load_site("nibi"), None, None, None, None))
    assert planned.fits and not planned.problems
    assert planned.as_json()["memory"][0]["peak_bytes"] == planned.memory[0].peak_bytes


def test_an_encoder_computes_logits_of_the_predicted_tokens_alone() -> None:
    overrides = ("model.family=modernbert", "model.preset=base", "data.task=mlm")
    rare, often = (plan("continue_pretraining", *overrides, f"data.masking.rate={rate}") for rate in (0.15, 0.3))
    assert rare.fullest.loss_bytes == pytest.approx(often.fullest.loss_bytes / 2, rel=0.001)
    assert exported_parameters(rare.architecture) == 149_655_232  # transformers' ModernBertForMaskedLM of that size
    layouts = operations(rare.architecture, rare.layout), operations(often.architecture, often.layout)
    assert layouts[0].output == pytest.approx(layouts[1].output / 2) and layouts[0].matrices == layouts[1].matrices


def test_a_model_of_other_layers_is_refused_by_the_tensors_it_has() -> None:
    small = architecture("gpt2", "tiny")
    other = replace(small, tensors=(*small.tensors, replace(small.tensors[0], key="vision.patches.weight")))
    with pytest.raises(ConfigError, match=r"cannot be planned: its model has vision.patches.weight"):
        _ = other.widths
