"""`sibol data prepare`: raw text to a dataset folder that training opens. Units of the input are encoded, then put together.

The dataset appears whole or not at all, and depends on nothing but inputs and options: not on workers, shards, time or machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.bad_lines import bad_line_error, check_policy
from data_tools.documents import SEPARATOR, Problem
from data_tools.encode import EncodeSettings
from data_tools.inputs import FoundInputs, find_inputs
from data_tools.merge import UNTREATED, kept_documents, manifest_of, merge, refuse_foreign_files
from data_tools.outputs import refuse_other
from data_tools.shards import SHARDS_FOLDER, Plan, Shard, finished_units, open_shard, parse_shard
from data_tools.splits import parse_split
from data_tools.text_encoder import TOKENIZERS
from data_tools.units import Unit, line_number, plan_units
from data_tools.work import Job, Summary, encode_units
from nemo_ext.common.dataset import DATASET_SCHEMA, MANIFEST_NAME
from nemo_ext.common.errors import ConfigError, DataError
from nemo_ext.common.files import disk_errors
from nemo_ext.tokenizers import TextTokenizer, load, plugins

BYTES_WORTH_A_WORKER = 16 << 20  # below this, starting a process takes longer than the work it saves
BYTES_WORTH_A_PROOF = 16 << 20  # below this, the tokenizer is done before another encoder is proved to equal it
BYTES_WORTH_A_CUT = 64 << 20  # a larger compressed file keeps one worker for minutes, which is said
SHARD_SCHEMA = "sibol.shard/1"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare, from what, and how strictly. `workers` None: as many as the inputs are worth, up to the CPUs at hand."""

    inputs: tuple[str, ...]
    tokenizer: Path
    out: Path
    text_field: str = "text"
    id_field: str | None = None
    separator: str = SEPARATOR
    sentences: bool = False
    prepend_bos: bool = False
    append_eod: bool = True
    drop_duplicates: str | None = None
    split: str = "98,1,1"
    workers: int | None = None
    min_tokens: int = 1
    max_tokens: int | None = None
    on_bad_line: str = "fail"
    plugin: str = "vanilla"
    plugin_settings: tuple[str, ...] = ()
    seed: int = 1234
    overwrite: bool = False
    dry_run: bool = False
    shard: str | None = None
    verify_encoder: bool = False


@dataclass(frozen=True)
class Progress:
    """How far the work is: bytes of the input files (as they lie on disk) and tokens. Earlier work counts as bytes, not as tokens."""

    bytes_read: int
    total_bytes: int
    tokens: int


OnProgress = Callable[[Progress], None]


def prepare(options: PrepareOptions, on_progress: OnProgress = lambda progress: None) -> dict[str, Any]:
    """Write the dataset folder `options.out` (or, in a dry run, only count) and return its manifest; for a shard, what it holds.

    What an interrupted run has finished is taken up. Raises ConfigError for options that make no sense, DataError for inputs that are
    missing, damaged or hold bad lines, OutputExistsError, DiskFullError.
    """
    _check(options)
    shard = parse_shard(options.shard) if options.shard is not None else Shard()
    if not options.dry_run:
        _refuse_out(options)
    tokenizer = load(options.tokenizer)
    inputs = _inputs(options)
    settings = _encode_settings(options, tokenizer, inputs)
    _try_plugin(settings, tokenizer)
    units = plan_units(inputs)
    plan = _plan(options, settings, tokenizer, inputs, len(units))
    if options.dry_run:
        job = Job(inputs.files, settings, None)
        summaries = _run(options, job, tokenizer, shard.units(units), {}, on_progress)
        records = [summary["records"] for summary in summaries]
        return manifest_of(plan, summaries, records, kept_documents(plan, records))
    with disk_errors(options.out), open_shard(options.out, shard, plan, tokenizer) as folder:
        done = finished_units(folder, shard.units(units), inputs.files)
        _run(options, Job(inputs.files, settings, folder), tokenizer, shard.units(units), done, on_progress)
    return merge(options.out) if options.shard is None else {"shard": shard.name, "folder": str(options.out / SHARDS_FOLDER / shard.name)}


def _run(
    options: PrepareOptions, job: Job, tokenizer: TextTokenizer, units: list[Unit], done: dict[int, Summary], on_progress: OnProgress
) -> list[Summary]:
    """Encode the units that are not done; summaries of those that were encoded."""
    total_bytes = sum(unit.size_bytes for unit in units)
    seen = [sum(unit.size_bytes for unit in units if unit.number in done), 0]

    def on_work(size_bytes: int, tokens: int) -> None:
        seen[0] += size_bytes
        seen[1] += tokens
        on_progress(Progress(seen[0], total_bytes, seen[1]))

    for unit in (unit for unit in units if unit.number in done):
        _judge(options, job, unit, done[unit.number])
    missing = [unit for unit in units if unit.number not in done]
    if not missing:
        return []
    summaries = []
    with closing(encode_units(job, tokenizer, missing, choose_workers(options, missing), on_work)) as results:
        for unit, summary in zip(missing, results, strict=True):
            _judge(options, job, unit, summary)
            summaries.append(summary)
    return summaries


def _judge(options: PrepareOptions, job: Job, unit: Unit, summary: Summary) -> None:
    """Raise DataError for the first line of a unit that holds no document, when such lines are errors."""
    if options.on_bad_line != "fail" or not summary["first_reject"]:
        return
    first = summary["first_reject"]
    file = job.files[first["file"]]
    part = next(part for part in unit.parts if part.file == first["file"])
    problem = Problem(first["reason"], first["detail"])
    raise bad_line_error(file.path, line_number(file, part, first["line"]), problem, first["raw"].encode())


def _check(options: PrepareOptions) -> None:
    check_policy(options.on_bad_line)
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers {options.workers}: at least 1 is needed. Leave it out to have it chosen.")
    if options.min_tokens < 0 or (options.max_tokens is not None and options.max_tokens < max(1, options.min_tokens)):
        raise ConfigError(f"--min-tokens {options.min_tokens} --max-tokens {options.max_tokens}: no document can have such a length.")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: expected 0 or more.")
    if options.drop_duplicates not in (None, "exact"):
        raise ConfigError(f"--drop-duplicates {options.drop_duplicates!r}: expected exact. For near duplicates see `sibol data dedup`.")
    if options.dry_run and options.shard is not None:
        raise ConfigError("--dry-run counts the whole input. Leave --shard out.")


def _refuse_out(options: PrepareOptions) -> None:
    """Only a dataset is ever replaced: --overwrite with a wrong --out must not remove somebody's folder. Work in progress goes on."""
    out = options.out
    in_progress = (out / SHARDS_FOLDER).is_dir() and not (out / MANIFEST_NAME).exists()
    if not in_progress:
        refuse_other(out, DATASET_SCHEMA, options.overwrite)
    refuse_foreign_files(out)


def _inputs(options: PrepareOptions) -> FoundInputs:
    inputs = find_inputs(options.inputs, tables=True)
    for file in inputs.files:
        if not file.path.is_file():
            raise DataError(f"Input {file.path} is not a regular file. Write its contents to a file first: parts of it are read at once.")
        if file.compression and file.size_bytes > BYTES_WORTH_A_CUT:
            logger.warning(
                "%s is compressed, so it is one piece of work: for one worker, and begun anew after an interruption. "
                "Decompress it first, or cut it with `sibol data chunk`.",
                file.path,
            )
    texts = [file.path for file in inputs.files if file.is_text]
    if options.id_field is not None and texts:
        raise ConfigError(
            f"--id-field {options.id_field}: text file {texts[0]} has no fields. Leave --id-field out, or name .jsonl inputs only."
        )
    return inputs


def _encode_settings(options: PrepareOptions, tokenizer: TextTokenizer, inputs: FoundInputs) -> EncodeSettings:
    if options.prepend_bos and tokenizer.bos_id is None:
        raise ConfigError(
            f"--prepend-bos: tokenizer {tokenizer.path} has no bos_token (found: {tokenizer.specials or 'no special tokens'}). "
            "Leave it out, or set bos_token in its tokenizer_config.json."
        )
    worth_it = inputs.size_bytes >= BYTES_WORTH_A_PROOF or options.verify_encoder
    fast = tokenizer.fast_encoder if worth_it else None
    return EncodeSettings(
        tokenizer_dir=str(options.tokenizer),
        text_field=options.text_field,
        id_field=options.id_field,
        separator=options.separator,
        sentences=options.sentences,
        prepend_bos=options.prepend_bos,
        append_eod=options.append_eod,
        split_limits=parse_split(options.split),
        min_tokens=options.min_tokens,
        max_tokens=options.max_tokens,
        plugin=options.plugin,
        plugin_settings=plugins.parse_settings(options.plugin, options.plugin_settings),
        seed=options.seed,
        encoder=fast.name if fast is not None else TOKENIZERS,
        verify_encoder=options.verify_encoder,
    )


def _try_plugin(settings: EncodeSettings, tokenizer: TextTokenizer) -> None:
    """Raise here what a plugin has to say about its settings, and have it compiled once before any worker needs it."""
    plugin = plugins.create(settings.plugin, settings.plugin_settings, tokenizer)
    if settings.plugin != UNTREATED:
        plugins.apply(plugin, tokenizer.encode_batch([]), np.zeros(0, np.uint64), settings.seed, tokenizer.vocab_size)


def choose_workers(options: PrepareOptions, units: Sequence[Unit]) -> int:
    """Worker processes to use: the number asked for, else one per 16 MiB of input up to the CPUs at hand; never more than units."""
    if options.workers is not None:
        return min(options.workers, len(units))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has no affinity
    return max(1, min(cpus, len(units), sum(unit.size_bytes for unit in units) // BYTES_WORTH_A_WORKER))


def _plan(options: PrepareOptions, settings: EncodeSettings, tokenizer: TextTokenizer, inputs: FoundInputs, units: int) -> Plan:
    """Everything that decides about the bytes of the dataset; most of it goes into the manifest as it is."""
    return {
        "schema": SHARD_SCHEMA,
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size, "eod_id": tokenizer.eod_id},
        "dtype": tokenizer.dtype.name,
        "plugin": {"name": settings.plugin, "settings": settings.plugin_settings},
        "seed": options.seed,
        "prepend_bos": options.prepend_bos,
        "append_eod": options.append_eod,
        "sentences": options.sentences,
        "drop_duplicates": options.drop_duplicates,
        "split": options.split,
        "fields": {"text": options.text_field, "id": options.id_field, "separator": options.separator},
        "limits": {"min_tokens": options.min_tokens, "max_tokens": options.max_tokens},
        "on_bad_line": options.on_bad_line,
        "encoder": {"name": settings.encoder, "verified": settings.verify_encoder},
        "inputs": [{"path": str(file.path), "bytes": file.size_bytes} for file in inputs.files],
        "passed_over": dict(inputs.skipped),
        "units": units,
        "created": {"sibol": sibol_version()},
    }


def sibol_version() -> str:
    """Version of the installed package, or "not installed" when it runs from a source folder."""
    try:
        return metadata.version("sibol")
    except metadata.PackageNotFoundError:
        return "not installed"
