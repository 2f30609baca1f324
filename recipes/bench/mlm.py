"""Masked language modelling of a ModernBERT-shaped model: packed and padded, beside transformers' model on the same texts.

Contenders take turns, each turn in a fresh process, so that a machine that slows down slows all of them. What is timed is whole
optimizer steps after the first two, and what is counted is real tokens, of which padding is none. transformers' model runs in the
shortest loop that does the same work, with its fastest attention (sdpa) and rows padded to the longest of a micro batch; once as it
comes, and once with logits at masked positions only (`sparse_prediction`), which Megatron's model always has here.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTENDERS = ("sibol packed", "sibol padded", "transformers", "transformers sparse")
WARM_UP_STEPS = 2
VOCABULARY = 8192  # of the tokenizer; a model of a published size keeps its own
SPECIAL_TOKENS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
MEDIAN_BYTES, SPREAD, LONGEST_BYTES = 700, 0.9, 8000  # lognormal lengths of documents, as those of web text and records are
MASKED = 0.3
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Job:
    """One contender's turn: model and dataset folder, and how much is in a step. `rows` packed rows hold about as much as `sequences`."""

    contender: str
    model: str
    dataset: str
    steps: int
    piece_tokens: int
    sequences: int
    micro_batch_size: int
    row_tokens: int
    rows: int
    threads: int


def compare(
    preset: str, layers: int | None, steps: int, rounds: int, piece_tokens: int, sequences: int, micro_batch_size: int, row_tokens: int
) -> Iterator[tuple[Job, list[float]]]:
    """Let the contenders take turns; yields each turn with the real tokens per second of each timed step."""
    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="sibol-bench-") as folder:
        dataset, model = make_dataset(Path(folder), sequences * (steps + WARM_UP_STEPS)), Path(folder) / "model"
        make_model(preset, layers, dataset, model)
        rows = max(1, round(sequences * mean_tokens(dataset, piece_tokens) / row_tokens))
        for turn in range(rounds):
            for offset in range(len(CONTENDERS)):  # another one begins each round
                contender = CONTENDERS[(turn + offset) % len(CONTENDERS)]
                shape = (steps + WARM_UP_STEPS, piece_tokens, sequences, micro_batch_size, row_tokens, rows, threads)
                job = Job(contender, str(model), str(dataset), *shape)
                yield job, run_in_process(job)


def summarise(turns: list[tuple[Job, list[float]]]) -> dict[str, dict[str, float]]:
    """Per contender: median over turns of real tokens/s, slowest and fastest turn, and the ratio to transformers as it comes."""
    summary: dict[str, dict[str, float]] = {}
    for contender in CONTENDERS:
        per_turn = [statistics.median(speeds) for job, speeds in turns if job.contender == contender]
        summary[contender] = {"tokens_per_s": statistics.median(per_turn), "low": min(per_turn), "high": max(per_turn)}
    for entry in summary.values():
        entry["ratio_to_transformers"] = entry["tokens_per_s"] / summary["transformers"]["tokens_per_s"]
    return summary


def make_dataset(folder: Path, documents: int) -> Path:
    """Documents of mixed lengths, tokenized by an encoder's tokenizer that is made here."""
    import numpy

    from data_tools.prepare import PrepareOptions, prepare
    from recipes.bench import corpus

    generator = numpy.random.default_rng(4)
    sizes = numpy.clip(generator.lognormal(numpy.log(MEDIAN_BYTES), SPREAD, documents), 40, LONGEST_BYTES).astype(int)
    text = " ".join(corpus.documents(LONGEST_BYTES, int(sizes.sum()) + LONGEST_BYTES))
    ends = numpy.cumsum(sizes)
    with open(folder / "documents.jsonl", "w", encoding="utf-8") as handle:
        for start, end in zip(ends - sizes, ends, strict=True):
            handle.write(json.dumps({"text": text[start:end]}) + "\n")
    make_tokenizer(folder / "tokenizer")
    inputs = (str(folder / "documents.jsonl"),)
    prepare(PrepareOptions(inputs=inputs, tokenizer=folder / "tokenizer", out=folder / "dataset", split="100,0,0"))
    return folder / "dataset"


def make_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with the special tokens and the template of ModernBERT's."""
    from tokenizers import Tokenizer, processors

    from nemo_ext.tokenizers import train
    from recipes.bench import corpus

    train(corpus.documents(4000, 4_000_000, seed=2), VOCABULARY, folder, kind="gpt2")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    ids = [(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def make_model(preset: str, layers: int | None, dataset: Path, out: Path) -> None:
    """A Hugging Face folder with seeded weights in the shape of a preset, cut to `layers` if given, which all contenders load."""
    from nemo_ext.convert.rules import layer_count
    from nemo_ext.convert.seeded import SeededWeights
    from nemo_ext.convert.stream import write_hf_weights
    from nemo_ext.models.family import FAMILIES
    from nemo_ext.tokenizers import load

    family, tokenizer = FAMILIES.get("modernbert"), load(dataset / "tokenizer")
    ids, own = tokenizer.special_ids, family.hf_config(preset, {})
    special = {"pad": ids["pad_token"], "bos": ids["cls_token"], "eos": ids["sep_token"], "cls": ids["cls_token"], "sep": ids["sep_token"]}
    overrides = {"num_hidden_layers": layers or own["num_hidden_layers"], **{f"{role}_token_id": token for role, token in special.items()}}
    hf_config = family.hf_config(preset, overrides, vocab_size=max(own["vocab_size"], tokenizer.vocab_size))
    rules = family.build_mapping(hf_config)
    source = SeededWeights(0, hf_config["initializer_range"], rules, layer_count(hf_config))
    write_hf_weights(hf_config, rules, source, out, model_files_dir=dataset / "tokenizer")


def texts(dataset: Path, piece_tokens: int) -> list[Any]:
    """The pieces of all documents, int64 ids in their template, as Megatron's side cuts them."""
    import numpy

    from data_tools.indexed import IndexedReader
    from nemo_ext.tasks.packing import Pieces
    from nemo_ext.tokenizers import load

    reader, ids = IndexedReader(dataset / "train"), load(dataset / "tokenizer").special_ids
    pieces = Pieces(reader.document_lengths() - 1, piece_tokens, 2)  # without the token that ends a document
    cut = zip(*(column.tolist() for column in pieces.locate(numpy.arange(pieces.count))), strict=True)
    ends = [[ids["cls_token"]], [ids["sep_token"]]]
    return [numpy.concatenate([ends[0], reader.sequence(text)[start : start + length], ends[1]]).astype(int) for text, start, length in cut]


def mean_tokens(dataset: Path, piece_tokens: int) -> float:
    """Mean tokens of a piece."""
    return statistics.mean(map(len, texts(dataset, piece_tokens)))


def run_in_process(job: Job) -> list[float]:
    """Run one turn in a process of its own; returns the real tokens per second of each timed step."""
    os.environ.update(OMP_NUM_THREADS=str(job.threads), PYTHONWARNINGS="ignore", TOKENIZERS_PARALLELISM="false")  # the child reads these
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        steps = pool.submit(sibol_steps if job.contender.startswith("sibol") else transformers_steps, job).result()
    return [tokens / seconds for tokens, seconds in steps[WARM_UP_STEPS:]]


def sibol_steps(job: Job) -> list[tuple[float, float]]:
    """Real tokens and seconds of every step of the engine, from its own metrics."""
    from nemo_ext.config import RunConfig, apply_overrides
    from nemo_ext.engine.worker import run_rank

    packed = job.contender == "sibol packed"
    with tempfile.TemporaryDirectory(prefix="sibol-bench-run-") as folder:
        settings = {
            "output_dir": f"{folder}/run",
            "data.path": job.dataset,
            "data.task": "mlm",
            "data.packing": str(packed).lower(),
            "data.piece_tokens": job.piece_tokens,
            "data.masking.rate": MASKED,
            "model.init_from": job.model,
            "train.max_steps": job.steps,
            "train.seq_length": job.row_tokens if packed else job.piece_tokens,
            "train.global_batch_size": job.rows if packed else job.sequences,
            "train.micro_batch_size": 1 if packed else job.micro_batch_size,
            "train.threads": job.threads,
            "optimizer.learning_rate": LEARNING_RATE,
            "validation.batches": 0,
            "logging.progress": "false",
            "logging.tensorboard": "false",
        }
        code = run_rank(apply_overrides(RunConfig(), [f"{key}={value}" for key, value in settings.items()]))
        assert code == 0, f"training ended with exit code {code}"
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    ends = [(0, 0.0), *((line["consumed_tokens"], line["wall_s"]) for line in lines if "wall_s" in line)]
    return [(end[0] - start[0], end[1] - start[1]) for start, end in itertools.pairwise(ends)]


def transformers_steps(job: Job) -> list[tuple[float, float]]:
    """Real tokens and seconds of every step of a plain loop over transformers' model."""
    import numpy
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling

    torch.set_num_threads(job.threads)
    sparse = {"sparse_prediction": True} if job.contender.endswith("sparse") else {}
    model = AutoModelForMaskedLM.from_pretrained(
        job.model, dtype=torch.float32, attn_implementation="sdpa", reference_compile=False, **sparse
    )
    collate = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(job.model), mlm_probability=MASKED)
    pieces = texts(Path(job.dataset), job.piece_tokens)
    order = numpy.random.default_rng(5).permutation(len(pieces)).tolist()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    done: list[tuple[float, float]] = []
    for step in range(job.steps):
        began, tokens = time.monotonic(), 0
        chosen = [pieces[order[number % len(order)]] for number in range(step * job.sequences, (step + 1) * job.sequences)]
        for first in range(0, job.sequences, job.micro_batch_size):
            rows = chosen[first : first + job.micro_batch_size]
            tokens += sum(map(len, rows))
            loss = model(**collate([{"input_ids": row} for row in rows])).loss
            (loss * len(rows) / job.sequences).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done.append((tokens, time.monotonic() - began))
    return done
