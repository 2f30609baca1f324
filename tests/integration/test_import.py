"""Hugging Face -> Megatron checkpoint -> Hugging Face: the same bits, however it is cut, interrupted or read, or nothing at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nemo_ext.common.errors import ConversionError, DiskFullError, OutputExistsError
from nemo_ext.common.files import sha256_of_file
from nemo_ext.convert.checkpoint import CheckpointWeights
from nemo_ext.convert.export import export_folder
from nemo_ext.convert.importing import import_model, plan_import
from nemo_ext.convert.reader import SafetensorsReader
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.models.family import family_of
from recipes.cli.import_model import import_model as import_command
from tests.support.ranks import run_ranks
from tests.support.tiny_models import GEMMA3, GPT2, LLAMA, MODERNBERT, QWEN2, build_model, start_megatron, write_random_hf_model

TIED: dict[str, Any] = {**QWEN2, "num_hidden_layers": 4, "tie_word_embeddings": True}
MODELS = {"qwen2": QWEN2, "qwen2, tied": TIED, "gemma3": GEMMA3, "gpt2": GPT2, "llama": LLAMA, "modernbert": MODERNBERT}
SMALL_FILES = 100_000


@pytest.fixture(scope="module", autouse=True)
def processes_with_imports() -> None:
    """Start the helper process that has imported Megatron before a verification starts one that has not."""
    run_ranks(1, os.getpid)


def write_source(folder: Path, hf_config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Path:
    """A random model in several safetensors files, with what belongs to a model besides weights."""
    model = write_random_hf_model(folder, hf_config).to(dtype)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="300KB")
    for name in ("LICENSE", "chat_template.jinja", "tokenizer.json", "generation_config.json"):
        (folder / name).write_text(json.dumps({"file": name}))
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but those that tell the time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("provenance.json", "README.md"))
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in files}


def same_bits(one: Path, other: Path) -> bool:
    first, second = SafetensorsReader(one), SafetensorsReader(other)
    assert set(first.tensors) == set(second.tensors)
    return all(
        first.stored(name).dtype == second.stored(name).dtype and torch.equal(first.read(name), second.read(name)) for name in first.tensors
    )


def load_with_megatron(weights: str, hf_config: dict[str, Any], tp: int, pp: int) -> str:
    """Load by Megatron's own loader, strictly, into this rank's part of the model; returns the fingerprint of all parts."""
    from megatron.core import dist_checkpointing

    from nemo_ext.convert.load import weights_fingerprint

    start_megatron(tp, pp)
    model = build_model(hf_config, tp, pp, params_dtype=torch.bfloat16, pipeline_dtype=torch.bfloat16)
    loaded = dist_checkpointing.load(model.sharded_state_dict(prefix="module."), weights)
    missing, unexpected = model.load_state_dict({key.removeprefix("module."): value for key, value in loaded.items()}, strict=False)
    assert not missing and not unexpected
    return weights_fingerprint(model, family_of(hf_config).build_mapping(hf_config))


@pytest.mark.parametrize(
    ("name", "tp", "pp"), [("qwen2", 2, 1), ("qwen2, tied", 1, 2), ("gemma3", 2, 1), ("gpt2", 1, 2), ("llama", 2, 1), ("modernbert", 2, 1)]
)
def test_an_import_is_verified_read_by_megatron_under_any_layout_and_exported_bit_exact(tmp_path: Path, name: str, tp: int, pp: int):
    source = write_source(tmp_path / "hf", MODELS[name], torch.bfloat16)
    report = import_model(plan_import(source, file_bytes=SMALL_FILES), tmp_path / "ckpt", workers=2, verify=True)
    assert report.verification is not None and report.verification["max_abs_difference"] < 1e-5
    assert (
        run_ranks(tp * pp, load_with_megatron, str(tmp_path / "ckpt" / "weights"), MODELS[name], tp, pp) == [report.fingerprint] * tp * pp
    )
    exported = export_folder(tmp_path / "ckpt", tmp_path / "out", max_shard_bytes=300_000, workers=2, verify=False)
    assert same_bits(source, tmp_path / "out")
    assert exported.fingerprint == report.fingerprint
    for file in ("LICENSE", "chat_template.jinja", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "out" / file).read_text() == (source / file).read_text()
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())["source"]["imported"]
    assert record["source"]["config_sha256"] == sha256_of_file(source / "config.json")
    assert record["weights"]["conversions"] == {"BF16 as bfloat16": report.parameters}


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory) -> tuple[HuggingFaceWeights, CheckpointWeights]:
    """A model's weights as Hugging Face files and as an imported checkpoint."""
    folder, hf_config = tmp_path_factory.mktemp("both"), MODELS[request.param]
    source = write_source(folder / "hf", hf_config)
    plan = plan_import(source, file_bytes=SMALL_FILES)
    import_model(plan, folder / "ckpt", verify=False)
    return plan.source, CheckpointWeights(folder / "ckpt" / "weights", plan.table.rules, plan.table.num_layers)


@settings(max_examples=60)
@given(st.data())
def test_any_rectangle_is_the_same_from_the_checkpoint_as_from_the_source(both, data: st.DataObject):
    hugging_face = both[0]
    rule, layer = data.draw(st.sampled_from(list(hugging_face.table.entries())))
    start = data.draw(st.integers(0, rule.rows - 1))
    stop = data.draw(st.integers(start + 1, rule.rows))
    left = data.draw(st.integers(0, rule.tail[0] - 1)) if rule.tail else 0
    right = data.draw(st.integers(left + 1, rule.tail[0])) if rule.tail else 0
    pieces = [torch.full((stop - start, *((right - left,) if rule.tail else ())), torch.nan) for _ in range(2)]
    for piece, weights in zip(pieces, both, strict=True):
        weights.fill(piece, rule, layer, start, left)
    assert torch.equal(*pieces)


def killing_after(done_bytes: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= done_bytes:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


def import_and_die(source: Path, out: Path, done_bytes: int) -> None:
    import_model(plan_import(source, file_bytes=SMALL_FILES), out, workers=2, verify=False, progress=killing_after(done_bytes))


def export_and_die(source: Path, out: Path, done_bytes: int) -> None:
    export_folder(source, out, max_shard_bytes=SMALL_FILES, workers=2, verify=False, progress=killing_after(done_bytes))


def finish(function: Callable[..., None], start: Path, out: Path, seen: list[int]) -> None:
    """What `function` began, by one worker; `seen` gets the bytes done as they are told."""
    if function is import_and_die:
        import_model(plan_import(start, file_bytes=SMALL_FILES), out, verify=False, progress=lambda done, total: seen.append(done))
    else:
        export_folder(start, out, max_shard_bytes=SMALL_FILES, verify=False, progress=lambda done, total: seen.append(done))


def run_and_die(function: Callable[..., None], *arguments: Any) -> None:
    child = multiprocessing.get_context("forkserver").Process(target=function, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def test_a_conversion_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path: Path):
    source = write_source(tmp_path / "hf", QWEN2)
    import_model(plan_import(source, file_bytes=SMALL_FILES), tmp_path / "whole", verify=False)
    export_folder(tmp_path / "whole", tmp_path / "exported", max_shard_bytes=SMALL_FILES, verify=False)
    for function, start, expected in ((import_and_die, source, "whole"), (export_and_die, tmp_path / "whole", "exported")):
        out, partial = tmp_path / f"{expected}_again", tmp_path / f".{expected}_again.partial"
        for done_bytes in (500_000, 900_000):
            run_and_die(function, start, out, done_bytes)
            assert not out.exists()
        files = {path.relative_to(partial / "content") for path in (partial / "content").rglob("*.*") if path.suffix != ".partial"}
        recorded = {path.name for path in (partial / "records").iterdir()}  # a kill may come between a file and its record
        kept = [file for file in files if str(file).replace("/", "_") + ".json" in recorded]
        inodes = {file: (partial / "content" / file).stat().st_ino for file in kept}
        assert len(inodes) >= 4
        seen: list[int] = []
        finish(function, start, out, seen)
        assert seen[0] >= 300_000
        assert digests(out) == digests(tmp_path / expected)
        assert all((out / file).stat().st_ino == inode for file, inode in inodes.items())
        assert not partial.exists()


def test_what_another_source_left_half_written_is_not_used(tmp_path: Path):
    write_source(tmp_path / "one", QWEN2)
    write_random_hf_model(tmp_path / "other", QWEN2, seed=5)
    run_and_die(import_and_die, tmp_path / "one", tmp_path / "ckpt", 900_000)
    report = import_model(plan_import(tmp_path / "other", file_bytes=SMALL_FILES), tmp_path / "ckpt", verify=False)
    import_model(plan_import(tmp_path / "other", file_bytes=SMALL_FILES), tmp_path / "clean", workers=3, verify=False)
    assert digests(tmp_path / "ckpt") == digests(tmp_path / "clean")
    assert export_folder(tmp_path / "ckpt", tmp_path / "out", verify=False).fingerprint == report.fingerprint


def test_a_cast_rounds_once_and_is_verified_at_that_precision(tmp_path: Path):
    source = write_source(tmp_path / "hf", LLAMA)
    report = import_model(plan_import(source, dtype="bf16"), tmp_path / "ckpt", verify=True)
    assert report.conversions == {"F32 as bfloat16": report.parameters}
    export_folder(tmp_path / "ckpt", tmp_path / "out", verify=False)
    before, after = SafetensorsReader(source), SafetensorsReader(tmp_path / "out")
    assert all(torch.equal(before.read(name).bfloat16(), after.read(name)) for name in after.tensors)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system of a chosen size takes root")
@pytest.mark.parametrize(("size", "message"), [("600k", "MiB are still to be written"), ("1280k", "No space left while writing")])
def test_a_full_disk_ends_in_one_message_and_the_rest_is_written_once_there_is_space(tmp_path: Path, size: str, message: str):
    source, disk = write_source(tmp_path / "hf", QWEN2), tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        with pytest.raises(DiskFullError, match=message):
            import_model(plan_import(source, file_bytes=SMALL_FILES), disk / "ckpt", workers=2, verify=False)
        assert [path.name for path in disk.iterdir()] == [".ckpt.partial"]
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        import_model(plan_import(source, file_bytes=SMALL_FILES), disk / "ckpt", verify=False)
        assert [path.name for path in disk.iterdir()] == ["ckpt"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def damage_nothing(folder: Path) -> None:
    """The config is changed below."""


def remove_a_shard(folder: Path) -> None:
    next(folder.glob("model-00002*")).unlink()


@pytest.mark.parametrize(
    ("change", "damage", "message"),
    [
        ({"num_hidden_layers": 3}, damage_nothing, r"unknown 'model.layers.3"),
        ({"num_hidden_layers": 5}, damage_nothing, r"missing 'model.layers.4"),
        ({"quantization_config": {"quant_method": "fp8"}}, damage_nothing, "quantization_config="),
        ({}, remove_a_shard, r"model-00002.* does not exist"),
    ],
)
def test_a_source_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, change: dict[str, Any], damage: Any, message: str):
    source = write_source(tmp_path / "hf", TIED)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **change}))
    damage(source)
    with pytest.raises(ConversionError, match=message):
        import_model(plan_import(source), tmp_path / "ckpt", verify=False)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def run_command(*arguments: str) -> Any:
    application = typer.Typer()
    application.command()(import_command)
    return CliRunner().invoke(application, list(arguments))


def test_the_command_says_what_it_would_do_does_it_and_says_what_it_did(tmp_path: Path):
    source, out = write_source(tmp_path / "hf", TIED), tmp_path / "ckpt"
    dry = run_command(str(source), str(out), "--dry-run", "--dtype", "bf16")
    assert dry.exit_code == 0 and "F32 as bfloat16" in dry.output and "bytes of weights" in dry.output
    assert not out.exists()
    result = run_command(str(source), str(out), "--no-verify", "--max-file", "200KB")
    assert result.exit_code == 0, result.output
    assert "float32" in result.output and "Not verified" in result.output
    assert len(list((out / "weights").glob("*_0.distcp"))) > 2
    with pytest.raises(OutputExistsError):
        import_model(plan_import(source), out)
    shutil.rmtree(source)
    assert export_folder(out, tmp_path / "back", verify=False).fingerprint in result.output
