"""A resolved run on ranks of this machine, from start to exit code. No torch: the ranks bring their own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nemo_ext.common.blend import Blend
from nemo_ext.common.errors import SibolError
from nemo_ext.common.hf_config import with_common_names
from nemo_ext.config import from_yaml, to_yaml
from nemo_ext.engine.launch import CONTINUE_EXIT_CODE, Nodes, start_ranks, threads_per_rank
from nemo_ext.engine.resolve import ResolvedRun
from nemo_ext.engine.run_folder import changed_settings
from nemo_ext.tasks.treatment import UNTREATED, describe_treatment


def run_locally(run: ResolvedRun, nodes: Nodes = Nodes()) -> int:
    """Train on this machine's share of `run.ranks` ranks. Returns 0 when finished, 75 when stopped early, else the ranks' error code.

    Raises SibolError with the message that rank 0 left.
    """
    with tempfile.TemporaryDirectory(prefix="sibol-") as folder:
        settings = Path(folder) / "run.yaml"
        settings.write_text(to_yaml(run.config), encoding="utf-8")
        error_file = Path(folder) / "error.txt"
        ranks = run.ranks // nodes.count
        code = start_ranks(settings, ranks, threads_per_rank(run.config.train.threads, ranks), error_file, nodes)
        if code != 0 and error_file.exists():
            raise SibolError(error_file.read_text(encoding="utf-8"))
    if code == 0 and run.folder.steps()[-1:] != [run.config.train.max_steps]:
        return CONTINUE_EXIT_CODE
    return code


def describe(run: ResolvedRun) -> str:
    """What is about to run, in a few lines."""
    config, parallel, train = run.config, run.config.parallel, run.config.train
    rows = train.max_steps * train.global_batch_size
    tokens = rows * train.seq_length
    padded = "packing" in run.task.reads and not config.data.packing  # a row per document, or several for a long one
    start = f"continues from {run.resume_from}" if run.resume_from else f"starts from {config.model.init_from or 'random weights'}"
    data_parallel = run.ranks // (parallel.tp * parallel.pp * parallel.cp)
    sizes = with_common_names(run.hf_config)
    changed = changed_settings(config, from_yaml(run.folder.settings)) if run.resume_from else []
    return (
        f"run      {config.name} -> {run.folder.path} ({start})\n"
        f"model    {run.family.name}, {sizes['num_hidden_layers']} layers, hidden {sizes['hidden_size']}, "
        f"vocabulary {run.hf_config['vocab_size']:,}, {train.precision}\n"
        f"{describe_data(run.data, tokens, rows if padded else None)}{describe_treatment(config.data)}"
        f"steps    {train.max_steps:,} x {train.global_batch_size} x {train.seq_length} = {tokens:,} tokens{' at most' if padded else ''}\n"
        f"ranks    {run.ranks} (tp {parallel.tp}, pp {parallel.pp}, cp {parallel.cp}, dp {data_parallel})"
        + (f"\nchanged  {', '.join(changed)} since the run was last started" if changed else "")
    )


def describe_data(data: Blend, tokens: int, documents: int | None) -> str:
    """One line per dataset: its share, what it holds, and how often `tokens` training tokens, or `documents`, go through it."""
    lines = ""
    for dataset, share in data.parts:
        split = dataset.splits["train"]
        portion = f"{share:.1%} " if len(data.parts) > 1 else ""
        plugin = "" if dataset.plugin == UNTREATED else f", prepared with {dataset.plugin}"
        held_out = "" if "validation" in dataset.splits else ", no validation split"
        epochs = share * tokens / split.tokens if documents is None else share * documents / split.documents
        lines += (
            f"data     {portion}{dataset.path}: {split.tokens:,} training tokens in {split.documents:,} documents, "
            f"{epochs:.2g} epochs{plugin}{held_out}\n"
        )
    return lines
