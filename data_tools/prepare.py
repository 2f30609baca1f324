"""`sibol data prepare`: raw text to a dataset folder that training opens. Read, encode, write; the manifest comes last.

The folder appears whole or not at all, and depends on nothing but inputs and options: not on workers, time or machine.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from data_tools.bad_lines import POLICIES, BadLines
from data_tools.encode import EncodeSettings, encode_all
from data_tools.inputs import FoundInputs, find_inputs
from data_tools.leftovers import claim, release, remove_leftovers
from data_tools.lines import LineReader
from data_tools.shard import ShardWriter
from data_tools.splits import parse_split
from nemo_ext.common.dataset import DATASET_SCHEMA, MANIFEST_NAME, TOKENIZER_FOLDER
from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError
from nemo_ext.common.files import atomic_folder, refuse_existing, write_json
from nemo_ext.tokenizers import TextTokenizer, load, plugins

BYTES_WORTH_A_WORKER = 16 << 20  # below this, starting a process takes longer than the work it saves


@dataclass(frozen=True)
class PrepareOptions:
    """What to prepare, from what, and how strictly. `workers` None: as many as the inputs are worth, up to the CPUs at hand."""

    inputs: tuple[str, ...]
    tokenizer: Path
    out: Path
    text_field: str = "text"
    id_field: str | None = None
    append_eod: bool = True
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


@dataclass(frozen=True)
class Progress:
    """How far the work is: bytes of the input files (as they lie on disk) and tokens."""

    bytes_read: int
    total_bytes: int
    tokens: int


def prepare(options: PrepareOptions, on_progress: Callable[[Progress], None] = lambda progress: None) -> dict[str, Any]:
    """Write the dataset folder `options.out` (or, in a dry run, only count) and return its manifest.

    Raises ConfigError for options that make no sense, DataError for inputs that are missing, damaged or hold bad lines,
    OutputExistsError, DiskFullError.
    """
    _check(options)
    if not options.dry_run:
        _refuse_out(options)
        remove_leftovers(options.out)
    tokenizer = load(options.tokenizer)
    settings = _encode_settings(options)
    inputs = _inputs(options)
    if options.dry_run:
        return _write(options, settings, tokenizer, inputs, None, on_progress)
    with atomic_folder(options.out, options.overwrite) as folder:
        claim(folder)
        manifest = _write(options, settings, tokenizer, inputs, folder, on_progress)
        tokenizer.copy(folder / TOKENIZER_FOLDER)
        release(folder)
        write_json(folder / MANIFEST_NAME, manifest)
    return manifest


def _check(options: PrepareOptions) -> None:
    if options.on_bad_line not in POLICIES:
        raise ConfigError(f"--on-bad-line {options.on_bad_line!r} is not known. Choose one of: {', '.join(POLICIES)}.")
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers {options.workers}: at least 1 is needed. Leave it out to have it chosen.")
    if options.min_tokens < 0 or (options.max_tokens is not None and options.max_tokens < max(1, options.min_tokens)):
        raise ConfigError(f"--min-tokens {options.min_tokens} --max-tokens {options.max_tokens}: no document can have such a length.")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: expected 0 or more.")


def _refuse_out(options: PrepareOptions) -> None:
    """Only a dataset is ever replaced: --overwrite with a wrong --out must not remove somebody's folder."""
    refuse_existing(options.out, options.overwrite)
    taken = options.out.is_file() or (options.out.is_dir() and any(options.out.iterdir()))
    if taken and not (options.out / MANIFEST_NAME).is_file():
        raise OutputExistsError(
            f"{options.out} is not a dataset (it has no {MANIFEST_NAME}), so --overwrite does not replace it. Choose another place."
        )


def _inputs(options: PrepareOptions) -> FoundInputs:
    inputs = find_inputs(options.inputs)
    texts = [file.path for file in inputs.files if file.is_text]
    if options.id_field is not None and texts:
        raise ConfigError(
            f"--id-field {options.id_field}: text file {texts[0]} has no fields. Leave --id-field out, or name .jsonl inputs only."
        )
    return inputs


def _encode_settings(options: PrepareOptions) -> EncodeSettings:
    return EncodeSettings(
        tokenizer_dir=str(options.tokenizer),
        text_field=options.text_field,
        id_field=options.id_field,
        append_eod=options.append_eod,
        split_limits=parse_split(options.split),
        min_tokens=options.min_tokens,
        max_tokens=options.max_tokens,
        plugin=options.plugin,
        plugin_settings=plugins.parse_settings(options.plugin, options.plugin_settings),
        seed=options.seed,
    )


def choose_workers(options: PrepareOptions, inputs: FoundInputs) -> int:
    """Worker processes to use: the number asked for, else one per 16 MiB of input up to the CPUs this process may use."""
    if options.workers is not None:
        return options.workers
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has no affinity
    return max(1, min(cpus, inputs.size_bytes // BYTES_WORTH_A_WORKER))


def _write(
    options: PrepareOptions,
    settings: EncodeSettings,
    tokenizer: TextTokenizer,
    inputs: FoundInputs,
    folder: Path | None,
    on_progress: Callable[[Progress], None],
) -> dict[str, Any]:
    reader, skipped, tokens = LineReader(inputs), Counter(inputs.skipped), 0
    with (
        ShardWriter(folder, tokenizer.dtype) as shard,
        BadLines(options.on_bad_line, inputs, folder) as bad_lines,
        closing(encode_all(reader, settings, choose_workers(options, inputs))) as batches,
    ):
        for batch in batches:
            for reject in batch.rejects:
                bad_lines.add(reject)
            skipped.update(batch.skipped)
            shard.add(batch)
            tokens += batch.tokens
            on_progress(Progress(batch.bytes_read, inputs.size_bytes, tokens))
        splits, duplicates = shard.finish(), shard.duplicate_documents()
    skipped.update(bad_lines.counts)
    results = {
        "inputs": reader.digests,
        "splits": splits,
        "skipped": dict(sorted(skipped.items())),
        "duplicate_documents": duplicates,
    }
    _require_train(options, results)
    return _manifest(options, settings, tokenizer, results)


def _require_train(options: PrepareOptions, results: dict[str, Any]) -> None:
    if "train" in results["splits"]:
        return
    skipped = ", ".join(f"{count} {reason}" for reason, count in results["skipped"].items()) or "nothing skipped"
    raise DataError(
        f"The train split would be empty: {sum(split['documents'] for split in results['splits'].values())} documents in all, {skipped}. "
        f"Check the inputs, --text-field ({options.text_field}), --min-tokens ({options.min_tokens}) and --split ({options.split})."
    )


def _manifest(options: PrepareOptions, settings: EncodeSettings, tokenizer: TextTokenizer, results: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": DATASET_SCHEMA,
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size, "eod_id": tokenizer.eod_id},
        "plugin": {"name": settings.plugin, "settings": settings.plugin_settings},
        "seed": options.seed,
        "append_eod": options.append_eod,
        "split": options.split,
        "fields": {"text": options.text_field, "id": options.id_field},
        "limits": {"min_tokens": options.min_tokens, "max_tokens": options.max_tokens},
        "on_bad_line": options.on_bad_line,
        **results,
        "created": {"sibol": sibol_version()},
    }


def sibol_version() -> str:
    """Version of the installed package, or "not installed" when it runs from a source folder."""
    try:
        return metadata.version("sibol")
    except metadata.PackageNotFoundError:
        return "not installed"
