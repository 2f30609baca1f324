"""Before the first step: are the weights in the model those that it was started from, and is their loss that of Hugging Face's model?

The first is a fingerprint over all ranks, taken after everything that wraps the model has had its hands on it. The second shows what the
first cannot, that the model computes with these weights what transformers does. Neither changes the run: no batch is consumed, no random
number is drawn. A resumed run has its weights from a checkpoint, and is not checked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from math import prod
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from nemo_ext.common.errors import ConversionError
from nemo_ext.common.files import read_json, sha256_of_file
from nemo_ext.common.memory import available_memory_bytes
from nemo_ext.convert.hf_folder import is_checkpoint
from nemo_ext.convert.initial import initial_weights
from nemo_ext.convert.load import LoadReport, different_tensors, load_weights, weights_fingerprint
from nemo_ext.convert.rules import Table, layer_count
from nemo_ext.engine.resolve import ResolvedRun
from nemo_ext.engine.start_loss import megatron_loss

# Nats per token. In fp32 correct models differ by less than 1e-5; in bf16 by its rounding, some thousandths.
TOLERANCES = {"fp32": 1e-3, "bf16-mixed": 5e-2}
TRAINED_AS = {"fp32": torch.float32, "bf16-mixed": torch.bfloat16}  # what Megatron's wrapper rounds a model to after it is loaded
LARGEST_WORK = 2e13  # floating point operations of the comparison on a CPU: about a minute
PATIENCE = timedelta(hours=12)  # for rank 0, which with model.compare_start=always runs any model on its CPU


class StartCheck(pl.Callback):
    """Loads a run's initial weights (`load`), and checks them when training starts. `run.notes` gets what it found."""

    def __init__(self, run: ResolvedRun) -> None:
        self.run = run
        self._rules = run.family.build_mapping(run.hf_config)
        self._source = None if run.resume_from else initial_weights(run.config, run.hf_config, self._rules)
        self._model: Any = None
        self._loaded: LoadReport | None = None
        self._ranks: dist.ProcessGroup | None = None

    def load(self, model: Any) -> None:
        """Fill this rank's shard after it is built; a resumed run's is filled from its checkpoint later."""
        if self._source is not None:
            dtype = TRAINED_AS[self.run.config.train.precision]
            self._model, self._loaded = model, load_weights(model, self._rules, self._source, dtype)
            self.run.notes["weights"] = asdict(self._loaded)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the weights, then their loss. Raises ConversionError on every rank when one of them is wrong."""
        if self._source is None:
            return
        self._ranks = waiting_group()
        self._check_weights()
        if self.run.config.model.init_from:
            self.run.notes["start_loss"] = self._compare_losses(trainer)
            if trainer.is_global_zero:
                print(_describe(self.run.notes), file=sys.stderr, flush=True)

    def _check_weights(self) -> None:
        assert self._source is not None and self._loaded is not None
        if weights_fingerprint(self._model, self._rules) != self._loaded.fingerprint:
            names = sorted({name for found in self._different_tensors() for name in found})
            raise ConversionError(
                f"{len(names)} tensor(s) of the model are not those of {self._source.name} before the first step: {', '.join(names[:8])}. "
                "Something overwrote them after loading. Nothing was trained."
            )
        start = self.run.config.model.init_from
        if start and is_checkpoint(Path(start)):
            self._check_imported(Path(start))

    def _check_imported(self, start: Path) -> None:
        """The fingerprint must be the one taken from Hugging Face's files at the import, if the model's dtype holds their values."""
        assert self._loaded is not None
        imported = read_json(start / "provenance.json", "provenance of the imported checkpoint")["weights"]
        stored, held = getattr(torch, imported["dtype"]), next(self._model.parameters()).dtype
        if torch.promote_types(stored, held) == held and imported["fingerprint"] != self._loaded.fingerprint:
            raise ConversionError(
                f"The weights of {start} have fingerprint {self._loaded.fingerprint}, but {imported['fingerprint']} was imported. "
                "The checkpoint was changed or damaged since; import it again."
            )

    def _compare_losses(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Both losses, or under "skipped" why not."""
        reason = from_rank_zero(self._reason_to_skip(trainer), self._ranks)
        if reason:
            return {"skipped": reason}
        batch = self._first_micro_batch(trainer)
        ours, tokens = megatron_loss(trainer, self.run.task, batch)
        theirs = from_rank_zero(self._reference_loss(batch) if trainer.is_global_zero else None, self._ranks)
        assert theirs is not None
        tolerance = TOLERANCES[self.run.config.train.precision]
        if not abs(ours - theirs) <= tolerance:  # written so that NaN fails
            raise ConversionError(
                f"Before the first step the loss is {ours:.6f}, but Hugging Face's model has {theirs:.6f} on the same {tokens:,} tokens "
                f"(allowed difference {tolerance:g}). The model does not compute what {self.run.config.model.init_from} does. Nothing was "
                "trained; model.compare_start=never trains nevertheless."
            )
        return {"megatron": ours, "hugging_face": theirs, "tokens": tokens, "tolerance": tolerance}

    def _first_micro_batch(self, trainer: pl.Trainer) -> dict[str, Any]:
        """The first micro batch of the run's first step, on every rank that of rank 0, taken without moving the data loader."""
        loader: Any = trainer.train_dataloader
        indices: Iterator[int] = from_rank_zero(list(next(iter(loader.batch_sampler))), self._ranks)
        return loader.collate_fn([loader.dataset[index] for index in indices])

    def _different_tensors(self) -> list[list[str]]:
        """By rank, the tensors that are not the source's."""
        assert self._source is not None
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, different_tensors(self._model, self._rules, self._source), group=self._ranks)
        return found

    def _reference_loss(self, batch: dict[str, Any]) -> float:
        folder, _ = _hugging_face_folder(Path(str(self.run.config.model.init_from)))
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            return self.run.task.reference(folder, batch)

    def _reason_to_skip(self, trainer: pl.Trainer) -> str | None:
        """Why the losses cannot or should not be compared; the same question on all ranks, of which rank 0's answer counts."""
        wish = self.run.config.model.compare_start
        if wish == "never":
            return "model.compare_start=never"
        if self.run.task.reference_loss is None:
            return f"task {self.run.task.name} has no Hugging Face model to compare with"
        if getattr(trainer.train_dataloader, "batch_sampler", None) is None:
            return "the data are a stream without places"
        _, reason = _hugging_face_folder(Path(str(self.run.config.model.init_from)))
        return reason or (None if wish == "always" else self._too_large())

    def _too_large(self) -> str | None:
        train = self.run.config.train
        shapes = Table(self._rules, layer_count(self.run.hf_config)).hf_shapes.values()
        parameters, tokens = sum(prod(shape) for shape in shapes), train.micro_batch_size * train.seq_length
        needed_bytes = (
            4 * parameters + 12 * tokens * self.run.hf_config["vocab_size"]
        )  # weights in fp32; logits, and two copies in the loss
        available_bytes = available_memory_bytes()
        if 2 * needed_bytes > available_bytes:
            return (
                f"it takes {needed_bytes / 2**30:,.1f} GiB of memory, more than half of the {available_bytes / 2**30:,.1f} GiB available; "
                "model.compare_start=always insists on it"
            )
        if 2 * parameters * tokens > LARGEST_WORK:
            return f"{parameters:,} parameters and {tokens:,} tokens would take minutes; model.compare_start=always insists on it"
        return None


def _hugging_face_folder(start: Path) -> tuple[Path, str | None]:
    """The Hugging Face folder that a start is or was imported from, and why that cannot be used, if so."""
    if not is_checkpoint(start):
        return start, None
    source = read_json(start / "provenance.json", "provenance of the imported checkpoint")["source"]
    folder = Path(source["folder"])
    if not (folder / "config.json").is_file():
        return folder, f"{folder}, which was imported, is not there any more"
    if sha256_of_file(folder / "config.json") != source["config_sha256"]:
        return folder, f"{folder}, which was imported, has another config.json now"
    return folder, None


def waiting_group() -> dist.ProcessGroup:
    """All ranks, for waiting as long as the slowest takes: NCCL would end a run that waits for some minutes."""
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert group is not None
    return group


def from_rank_zero(value: Any, group: dist.ProcessGroup | None) -> Any:
    """What rank 0 calls it with, on every rank."""
    values = [value]
    dist.broadcast_object_list(values, src=0, group=group, device=torch.device("cpu"))
    return values[0]


def _describe(notes: dict[str, Any]) -> str:
    weights, loss = notes["weights"], notes["start_loss"]
    text = f"start    the model holds the weights of {weights['source']} (fingerprint {weights['fingerprint']})\n"
    if "skipped" in loss:
        return text + f"         loss before step 1 not compared with Hugging Face's: {loss['skipped']}"
    ours, theirs = loss["megatron"], loss["hugging_face"]
    return text + f"         loss before step 1 on {loss['tokens']:,} tokens: {ours:.6f}, of Hugging Face's model: {theirs:.6f}"
