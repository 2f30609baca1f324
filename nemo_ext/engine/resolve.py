"""From settings to everything a run needs to know before torch is imported: dataset, architecture, where it resumes.

The command line calls this before it starts ranks, so that a mistake is reported in a second and by one process.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from nemo_ext.common.blend import Blend, open_blend
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.files import atomic_file, write_json
from nemo_ext.common.hf_config import own_name
from nemo_ext.config import RunConfig, check_architecture, check_run, longest_sequence, to_yaml
from nemo_ext.convert.hf_folder import copy_licences, model_files
from nemo_ext.engine.run_folder import RunFolder, checkpoint_to_resume, read_state
from nemo_ext.models.family import FAMILIES, ModelFamily, family_of, padded_vocab_size, read_model_config
from nemo_ext.tasks.task import TASKS, Task
from nemo_ext.tasks.treatment import check_treatment

BLEND_SURPLUS = 0.005  # share of sequences that Megatron builds beyond those asked for (`mid_level_dataset_surplus`)


@dataclass(frozen=True)
class ResolvedRun:
    """A checked run: settings, family, task, Hugging Face config, dataset, folder, and the checkpoint to continue from.

    `notes` collects what later steps found out (which weights were loaded, their fingerprint) for the run's records.
    """

    config: RunConfig
    family: ModelFamily
    task: Task
    hf_config: dict[str, Any]
    data: Blend
    folder: RunFolder
    resume_from: Path | None
    ranks: int
    notes: dict[str, Any] = field(default_factory=dict)


def resolve(config: RunConfig, ranks: int) -> ResolvedRun:
    """Check `config` for `ranks` ranks against its dataset and architecture. Raises SibolError with the remedy."""
    check_run(config, ranks)
    data = open_blend(config.data.blend or {config.data.path: 1.0})
    check_treatment(config.data, data)
    task = TASKS.get(config.data.task)
    require_sequences(task, data)
    task.check_run(config, data)
    resume_from = checkpoint_to_resume(config)
    if resume_from is not None:
        require_same_data(resume_from, data)
        require_same_order(resume_from, task, config, data)
    family, hf_config = architecture(config, data) if resume_from is None else architecture_of_run(RunFolder(config.output_dir), data)
    require_objective(task, family)
    family.check(hf_config)
    check_architecture(config, hf_config)
    require_divisible_vocabulary(config, hf_config)
    return ResolvedRun(
        config=config,
        family=family,
        task=task,
        hf_config=hf_config,
        data=data,
        folder=RunFolder(config.output_dir),
        resume_from=resume_from,
        ranks=ranks,
    )


def architecture(config: RunConfig, data: Blend) -> tuple[ModelFamily, dict[str, Any]]:
    """Family and Hugging Face config: of `init_from`, else of the preset at the size of the dataset's tokenizer.

    Raises DataError when the dataset was not made with the tokenizer of `init_from` or has ids beyond its vocabulary.
    """
    model = config.model
    if model.init_from is None:
        family = FAMILIES.get(model.family)
        hf_config = family.hf_config(model.preset, model.overrides, vocab_size=data.vocab_size)
        # A new model knows the positions that it is trained on, and no others.
        positions = own_name(hf_config, "max_position_embeddings")
        if positions not in model.overrides:
            hf_config[positions] = longest_sequence(config)
        hf_config.update(special_token_ids(family, hf_config, data))
        return family, family.normal_form(hf_config)
    source = model_files(model.init_from)
    hf_config = read_model_config(source)
    require_fields(hf_config, model.overrides, source)
    require_same_tokenizer(source, data)
    if hf_config["vocab_size"] < data.vocab_size:
        raise DataError(
            f"The dataset's tokenizer has {data.vocab_size} tokens, but the model in {source} has only "
            f"{hf_config['vocab_size']} embeddings. "
            "Prepare the dataset with the model's own tokenizer."
        )
    return family_of(hf_config), hf_config


def require_fields(hf_config: Mapping[str, Any], overrides: Mapping[str, Any], source: Path) -> None:
    """Raise ConfigError unless `overrides` say of the model in `source` what it is: they cannot change one that has its weights."""
    other = [f"{name} is {hf_config.get(name)!r}, not {value!r}" for name, value in overrides.items() if hf_config.get(name) != value]
    if other:
        raise ConfigError(
            f"model.overrides cannot change a model that is loaded with init_from: of {source}, {'; '.join(other)}. "
            "Remove these overrides, or start from a model that has them."
        )


def architecture_of_run(folder: RunFolder, data: Blend) -> tuple[ModelFamily, dict[str, Any]]:
    """Family and Hugging Face config that a run began with. What it was started from may have moved or changed since, and is not read."""
    hf_config = read_model_config(folder.model)
    require_same_tokenizer(folder.model, data)
    return family_of(hf_config), hf_config


def special_token_ids(family: ModelFamily, hf_config: dict[str, Any], data: Blend) -> dict[str, int | None]:
    """Which tokens a new model's config names.

    A causal model has one special token, which ends documents, starts generation and fills batches. Others have those that the
    datasets' tokenizer has for the roles in their config; whatever begins or ends a text does so under either name.
    """
    if family.objective == "causal":
        return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), data.eod_id)
    from nemo_ext.tokenizers import load

    ids = load(data.tokenizer_dir).special_ids
    stand_ins = {"bos_token": "cls_token", "cls_token": "bos_token", "eos_token": "sep_token", "sep_token": "eos_token"}
    roles = [name.removesuffix("_id") for name in {*hf_config, *family.free_fields} if name.endswith("_token_id")]
    found = {f"{role}_id": ids.get(role, ids.get(stand_ins.get(role, ""))) for role in sorted(roles)}
    return {**found, "pad_token_id": ids.get("pad_token", data.eod_id)}


def require_objective(task: Task, family: ModelFamily) -> None:
    """Raise ConfigError unless models of `family` predict what `task` asks them for."""
    if task.objective != family.objective:
        able = [name for name in FAMILIES.names() if FAMILIES.get(name).objective == task.objective]
        raise ConfigError(
            f"Task {task.name!r} trains {task.objective} language models, but family {family.name!r} is a {family.objective} one. "
            f"Use a family that can learn it ({', '.join(able) or 'none is installed'}), or set data.task to a task for {family.name}."
        )


def require_divisible_vocabulary(config: RunConfig, hf_config: dict[str, Any]) -> None:
    """Raise ConfigError unless every tensor parallel rank gets as many rows of the embedding."""
    rows, tp = padded_vocab_size(hf_config["vocab_size"]), config.parallel.tp
    if rows % tp:
        raise ConfigError(f"The vocabulary, padded to {rows}, is not divisible by parallel.tp={tp}. Use a tp that divides {rows}.")


def require_same_tokenizer(source: Path, data: Blend) -> None:
    """Raise DataError unless the data were made with the tokenizer in the Hugging Face folder `source`."""
    from nemo_ext.tokenizers import load

    data.require_tokenizer(load(source).fingerprint, f"the model in {source}")


def require_same_data(checkpoint: Path, data: Blend) -> None:
    """Raise DataError when `checkpoint` was trained on other data: its position would point at other sequences. Folders may move."""
    earlier = read_state(checkpoint)["dataset_fingerprint"]
    if earlier != data.fingerprint:
        raise DataError(
            f"{checkpoint} was trained on data with fingerprint {earlier[:12]}, but the settings name data with {data.fingerprint[:12]}: "
            "other token files or other shares. Restore them; to go on with other data, export the run and start one from it "
            "(model.init_from)."
        )


def require_same_order(checkpoint: Path, task: Task, config: RunConfig, data: Blend) -> None:
    """Raise ConfigError when another number of steps would put what is left of the data into another order.

    Megatron shuffles all epochs of a run together, so that their number decides every sample's place; within one epoch it decides nothing.
    """
    earlier, wanted = read_state(checkpoint)["max_steps"], config.train.max_steps
    if earlier == wanted or not task.order_follows_steps or config.data.plugin_mode == "online":
        return
    sequences, length = max(earlier, wanted) * config.train.global_batch_size, config.train.seq_length
    for split, share in data.split("train"):
        drawn = ceil(ceil(sequences * share) * (1 + BLEND_SURPLUS)) * length + 1
        if drawn > split.tokens:
            raise ConfigError(
                f"train.max_steps={wanted}, but {checkpoint} is of a run of {earlier} steps, and over more than one epoch of "
                f"{split.prefix} the order of the data depends on the number of steps: sequences would be repeated and left out. "
                f"Keep train.max_steps={earlier} (train.stop_after_step ends it sooner), or export the run and start a new one from it "
                "(model.init_from)."
            )


def require_sequences(task: Task, data: Blend) -> None:
    """Raise DataError unless the sequences of the datasets are what `task` reads: shuffled sentences are no text to learn to go on."""
    for dataset in data.datasets:
        if bool(dataset.manifest.get("sentences")) != task.by_sentence:
            needed, remedy = ("sentence", "with") if task.by_sentence else ("document", "without")
            raise DataError(
                f"Task {task.name!r} needs a sequence per {needed}, but {dataset.path} was not prepared so. "
                f"Prepare it again {remedy} --sentences."
            )


def write_run_folder(run: ResolvedRun) -> None:
    """Write run.yaml and, at the start, the model folder: config, generation config, tokenizer, licences. One process calls it."""
    from nemo_ext.tokenizers import load

    run.folder.path.mkdir(parents=True, exist_ok=True)
    run.folder.remove_leftovers()
    with atomic_file(run.folder.settings) as handle:
        handle.write(to_yaml(run.config))
    if run.resume_from is not None:
        return  # the model's files are those that the run began with
    # Megatron writes its indices in place: of a start that was killed, some may be half written.
    shutil.rmtree(run.folder.index_cache, ignore_errors=True)
    run.folder.model.mkdir(exist_ok=True)
    write_json(run.folder.model / "config.json", run.hf_config)
    source = model_files(run.config.model.init_from) if run.config.model.init_from else Path(run.data.tokenizer_dir)
    load(source).copy(run.folder.model)
    copy_licences(source, run.folder.model)
    _write_generation_config(run, source)


def _write_generation_config(run: ResolvedRun, source: Path) -> None:
    target = run.folder.model / "generation_config.json"
    if (source / "generation_config.json").is_file():
        write_json(target, json.loads((source / "generation_config.json").read_text(encoding="utf-8")))
        return
    ids = {name: run.hf_config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if run.hf_config.get(name) is not None}
    write_json(target, ids)
