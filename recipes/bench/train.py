"""Training throughput of Sibol, Hugging Face Trainer and a plain PyTorch loop on the same model, batch and threads.

Contenders take turns, each turn in a fresh process, so that a machine that slows down slows all of them. What is timed
is whole optimizer steps after the first two; start-up is not.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES: dict[str, tuple[str, int]] = {"10m": ("mini", 4096), "100m": ("100m", 32000)}  # preset, vocabulary
CONTENDERS = ("sibol", "hf_trainer", "plain_loop")
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Job:
    """One contender's turn: model and dataset folder, and the shape of a step."""

    contender: str
    model: str
    dataset: str
    steps: int
    seq_length: int
    global_batch_size: int
    micro_batch_size: int
    threads: int


def compare(
    size: str, steps: int, rounds: int, seq_length: int, global_batch_size: int, micro_batch_size: int
) -> Iterator[tuple[Job, list[float]]]:
    """Let the contenders take turns; yields each turn with its step times in seconds."""
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="sibol-bench-") as folder:
        dataset, model = make_dataset(Path(folder)), Path(folder) / "model"
        make_model(*SIZES[size], dataset, model)
        for turn in range(rounds):
            for offset in range(len(CONTENDERS)):  # another one begins each round
                contender = CONTENDERS[(turn + offset) % len(CONTENDERS)]
                job = Job(
                    contender, str(model), str(dataset), steps + WARM_UP_STEPS, seq_length, global_batch_size, micro_batch_size, threads
                )
                yield job, run_in_process(job)


def summarise(turns: list[tuple[Job, list[float]]]) -> dict[str, dict[str, float]]:
    """Per contender: median tokens/s over all timed steps, slowest and fastest turn, and the ratio to Hugging Face Trainer."""
    summary: dict[str, dict[str, float]] = {}
    for contender in CONTENDERS:
        own = [(job, times) for job, times in turns if job.contender == contender]
        per_turn = [job.global_batch_size * job.seq_length / statistics.median(times) for job, times in own]
        summary[contender] = {"tokens_per_s": statistics.median(per_turn), "low": min(per_turn), "high": max(per_turn)}
    for entry in summary.values():
        entry["ratio_to_hf_trainer"] = entry["tokens_per_s"] / summary["hf_trainer"]["tokens_per_s"]
    return summary


def make_dataset(folder: Path) -> Path:
    """Python's documentation topics, tokenized with a vocabulary of 4,096 or what the text gives."""
    from data_tools.prepare import PrepareOptions, prepare
    from data_tools.python_docs import write_python_docs
    from nemo_ext.tokenizers import train

    documents = folder / "documents.jsonl"
    write_python_docs(documents)
    train([documents.read_text(encoding="utf-8")], 4096, folder / "tokenizer")
    prepare(PrepareOptions(inputs=(str(documents),), tokenizer=folder / "tokenizer", out=folder / "dataset", split="100,0,0"))
    return folder / "dataset"


def make_model(preset: str, vocab_size: int, dataset: Path, out: Path) -> None:
    """A Hugging Face folder with seeded weights, which all contenders load."""
    from nemo_ext.convert.rules import layer_count
    from nemo_ext.convert.seeded import SeededWeights
    from nemo_ext.convert.stream import write_hf_weights
    from nemo_ext.models.family import FAMILIES

    family = FAMILIES.get("qwen2")
    hf_config = family.hf_config(preset, {}, vocab_size=vocab_size)
    rules = family.build_mapping(hf_config)
    source = SeededWeights(0, hf_config["initializer_range"], rules, layer_count(hf_config))
    write_hf_weights(hf_config, rules, source, out, model_files_dir=dataset / "tokenizer")


def run_in_process(job: Job) -> list[float]:
    """Run one turn in a process of its own; returns the seconds of each timed step."""
    os.environ.update(OMP_NUM_THREADS=str(job.threads), PYTHONWARNINGS="ignore", TOKENIZERS_PARALLELISM="false")  # the child reads these
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(step_times, job).result()[WARM_UP_STEPS:]


def step_times(job: Job) -> list[float]:
    """Seconds of every optimizer step of one turn, in this process."""
    return {"sibol": sibol_steps, "hf_trainer": hf_trainer_steps, "plain_loop": plain_loop_steps}[job.contender](job)


def sibol_steps(job: Job) -> list[float]:
    """Step times of the engine, from its own metrics."""
    from nemo_ext.config import RunConfig, apply_overrides
    from nemo_ext.engine.worker import run_rank

    with tempfile.TemporaryDirectory(prefix="sibol-bench-run-") as folder:
        settings = {
            "output_dir": f"{folder}/run",
            "data.path": job.dataset,
            "model.init_from": job.model,
            "train.max_steps": job.steps,
            "train.seq_length": job.seq_length,
            "train.global_batch_size": job.global_batch_size,
            "train.micro_batch_size": job.micro_batch_size,
            "train.threads": job.threads,
            "optimizer.learning_rate": 1e-4,
            "validation.batches": 0,
            "logging.progress": "false",
            "logging.tensorboard": "false",
        }
        code = run_rank(apply_overrides(RunConfig(), [f"{key}={value}" for key, value in settings.items()]))
        assert code == 0, f"training ended with exit code {code}"
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
        ends = [line["wall_s"] for line in lines if "wall_s" in line]
        return [end - before for before, end in itertools.pairwise([0.0, *ends])]


def _sequences(job: Job) -> list[Any]:
    """As many sequences of token ids [seq_length] int64 as the steps consume, straight from the dataset's .bin."""
    import numpy
    import torch

    ids = numpy.memmap(Path(job.dataset) / "train.bin", dtype=numpy.uint16, mode="r")
    count = job.steps * job.global_batch_size
    starts = numpy.arange(count) * job.seq_length % (len(ids) - job.seq_length)
    return [torch.from_numpy(ids[start : start + job.seq_length].astype(numpy.int64)) for start in starts]


def _hf_model(job: Job) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job.threads)
    return AutoModelForCausalLM.from_pretrained(job.model, torch_dtype=torch.float32, attn_implementation="sdpa")


def hf_trainer_steps(job: Job) -> list[float]:
    """Step times of transformers' Trainer with the same optimizer, clipping and accumulation."""
    import time

    from transformers import Trainer, TrainerCallback, TrainingArguments

    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            stamps.append(time.monotonic())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stamps.append(time.monotonic())

    data = [{"input_ids": ids, "labels": ids} for ids in _sequences(job)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=job.steps,
            per_device_train_batch_size=job.micro_batch_size,
            gradient_accumulation_steps=job.global_batch_size // job.micro_batch_size,
            learning_rate=1e-4,
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            lr_scheduler_type="cosine",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        Trainer(_hf_model(job), arguments, train_dataset=data, callbacks=[Clock()]).train()
    return [later - earlier for earlier, later in itertools.pairwise(stamps)]


def plain_loop_steps(job: Job) -> list[float]:
    """Step times of the shortest loop that does the same work on transformers' model."""
    import time

    import torch

    model, sequences = _hf_model(job).train(), _sequences(job)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    passes = job.global_batch_size // job.micro_batch_size
    times = []
    for step in range(job.steps):
        began = time.monotonic()
        for micro in range(passes):
            start = (step * passes + micro) * job.micro_batch_size
            batch = torch.stack(sequences[start : start + job.micro_batch_size])
            (model(input_ids=batch, labels=batch).loss / passes).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.monotonic() - began)
    return times
