"""Memory and speed of conversions, by model size: a checkpoint with the shapes of Qwen2.5-72B cut to a few layers, and the sum for all 80.

Memory is what a process has for itself (RssAnon of /proc/self/status, its highest value), libraries included: pages of files that the
kernel keeps cached belong to nobody. Speed is that of the bytes of the source, beside a plain copy of the same files with fsync.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MEBIBYTE = 2**20
WHOLE_LAYERS = 80  # of Qwen2.5-72B
TENSOR_PARALLEL = 8  # the direct load is that of one of so many ranks
SAMPLE_EVERY_S = 0.005
COLUMNS = ("work", "layers", "GB", "private peak, MiB", "before it, MiB", "MB/s", "of a copy's speed", f"all {WHOLE_LAYERS} layers, min")


@dataclass(frozen=True)
class Figures:
    """Of one piece of work: its highest private memory, what the process had before it began, and seconds."""

    peak_bytes: int
    before_bytes: int
    wall_s: float
    moved_bytes: int

    @property
    def megabytes_per_s(self) -> float:
        return self.moved_bytes / 1e6 / self.wall_s

    def as_json(self) -> dict[str, float]:
        """The figures by name."""
        return {**asdict(self), "megabytes_per_s": self.megabytes_per_s}


def rows(found: Mapping[str, Mapping[int, Figures]]) -> Iterator[tuple[str, ...]]:
    """Lines of a table with `COLUMNS`."""
    for name, by_layers in found.items():
        for layers, figures in by_layers.items():
            speed, copy = figures.megabytes_per_s, found["copy"].get(layers)
            of_copy = f"{speed / copy.megabytes_per_s:.2f}" if copy else ""
            minutes = f"{whole_bytes() / 1e6 / speed / 60:.1f}" if copy and name != "direct load" else ""
            peak, before = (f"{size_bytes / MEBIBYTE:,.0f}" for size_bytes in (figures.peak_bytes, figures.before_bytes))
            yield name, str(layers), f"{figures.moved_bytes / 1e9:.2f}", peak, before, f"{speed:,.0f}", of_copy, minutes


def compare(layer_counts: list[int], folder: Path, workers: int, say: Callable[[str], None]) -> dict[str, dict[int, Figures]]:
    """Figures of copy, import, export and direct load at each number of layers. Needs twice the largest checkpoint on disk."""
    found: dict[str, dict[int, Figures]] = {"copy": {}, "import": {}, "export": {}, "direct load": {}}
    for layers in layer_counts:
        source, checkpoint, exported = (folder / name for name in ("hf", "checkpoint", "exported"))
        size_bytes = write_model(source, layers)
        say(f"{layers} layer(s): {size_bytes / 1e9:.1f} GB")
        found["direct load"][layers] = in_process(_direct_load, source, size_bytes)
        found["copy"][layers] = in_process(_copy, source, folder / "copy", size_bytes)
        shutil.rmtree(folder / "copy")
        found["import"][layers] = in_process(_import, source, checkpoint, workers, size_bytes)
        shutil.rmtree(source)
        found["export"][layers] = in_process(_export, checkpoint, exported, workers, size_bytes)
        for used in (checkpoint, exported):
            shutil.rmtree(used)
        for name, figures in found.items():
            say(f"  {name}: {figures[layers].peak_bytes / MEBIBYTE:,.0f} MiB, {figures[layers].megabytes_per_s:,.0f} MB/s")
    return found


def config_of(layers: int) -> dict[str, Any]:
    """Qwen2.5-72B's config with fewer layers."""
    from nemo_ext.models.family import FAMILIES

    return FAMILIES.get("qwen2").hf_config("72b", {"num_hidden_layers": layers})


def whole_bytes() -> int:
    """Bytes of the whole model's weights in bf16."""
    return 2 * sum(prod(shape) for shape in _table(config_of(WHOLE_LAYERS)).hf_shapes.values())


def _table(hf_config: dict[str, Any]) -> Any:
    from nemo_ext.convert.rules import Table, layer_count
    from nemo_ext.models.family import family_of

    return Table(family_of(hf_config).build_mapping(hf_config), layer_count(hf_config))


def write_model(folder: Path, layers: int) -> int:
    """A Hugging Face folder with the 72B model's shapes in bf16; returns its bytes."""
    import torch

    return write_hf_folder(folder, config_of(layers), torch.bfloat16)


def write_hf_folder(folder: Path, hf_config: dict[str, Any], dtype: torch.dtype) -> int:
    """A Hugging Face folder of random weights, the same block again and again; returns the bytes of its weights."""
    import torch

    from nemo_ext.common.files import write_json
    from nemo_ext.convert.hf_folder import write_model_files
    from nemo_ext.convert.reader import INDEX_FILE
    from nemo_ext.convert.sources import row_steps
    from nemo_ext.convert.writer import SafetensorsWriter, plan_shards, shard_index

    shards = plan_shards(_table(hf_config).hf_shapes, dtype.itemsize)
    block = torch.randn(16 * MEBIBYTE, generator=torch.Generator().manual_seed(1)).to(dtype)
    folder.mkdir(parents=True)
    for shard in shards:
        with SafetensorsWriter(folder / shard.file, shard.shapes, dtype) as writer:
            for name, shape in shard.shapes.items():
                for start, stop in row_steps(shape):
                    rows = (stop - start, *shape[1:])
                    writer.write(name, start, block[: prod(rows)].view(rows))
            writer.finish()
    if len(shards) > 1:
        write_json(folder / INDEX_FILE, shard_index(shards, dtype.itemsize))
    write_model_files(folder, hf_config, str(dtype).removeprefix("torch."), None)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def in_process(function: Callable[..., Figures], *arguments: Any) -> Figures:
    """Run one piece of work in a fresh process."""
    os.environ.update(PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1")  # the child reads these
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def private_bytes() -> int:
    """Memory of this process that is no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no RssAnon")


def held_bytes() -> int:
    """All memory of this process, its share of mapped files included."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no Pss")


@contextmanager
def measured(moved_bytes: int, memory: Callable[[], int] = private_bytes) -> Iterator[Callable[[], Figures]]:
    """Samples `memory` while the block runs; the function it gives tells the figures afterwards."""
    before_bytes, began_s, ended = memory(), time.monotonic(), threading.Event()
    peak_bytes, wall_s = before_bytes, 0.0

    def sample() -> None:
        nonlocal peak_bytes
        while not ended.wait(SAMPLE_EVERY_S):
            peak_bytes = max(peak_bytes, memory())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield lambda: Figures(peak_bytes, before_bytes, wall_s, moved_bytes)
    finally:
        wall_s = time.monotonic() - began_s
        ended.set()
        sampler.join()


def _copy(source: Path, target: Path, size_bytes: int) -> Figures:
    target.mkdir()
    with measured(size_bytes) as figures:
        for file in source.glob("*.safetensors"):
            shutil.copyfile(file, target / file.name)
            descriptor = os.open(target / file.name, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    return figures()


def _import(source: Path, target: Path, workers: int, size_bytes: int, memory: Callable[[], int] = private_bytes) -> Figures:
    from nemo_ext.convert import distributed_writer, sums, verify  # noqa: F401  a command's start is not its speed
    from nemo_ext.convert.importing import import_model, plan_import

    with measured(size_bytes, memory) as figures:
        import_model(plan_import(source), target, workers=workers, verify=False)
    return figures()


def _export(source: Path, target: Path, workers: int, size_bytes: int, memory: Callable[[], int] = private_bytes) -> Figures:
    from nemo_ext.convert import stream, sums, verify  # noqa: F401
    from nemo_ext.convert.export import export_folder

    with measured(size_bytes, memory) as figures:
        export_folder(source, target, workers=workers, verify=False)
    return figures()


def _direct_load(source: Path, size_bytes: int) -> Figures:
    """What a rank's load adds to its shard: the shard's tensors are there before, and their pages too."""
    import torch

    from nemo_ext.convert.sources import HuggingFaceWeights

    table = _table(config_of(_layers_of(source)))
    weights = HuggingFaceWeights(source, table.rules, table.num_layers)
    shards = []
    for rule, layer in table.entries():
        split_columns = rule.key.endswith(("linear_proj.weight", "linear_fc2.weight"))
        rows = rule.rows if split_columns or not rule.tail else rule.rows // TENSOR_PARALLEL
        shape = (rows, *rule.tail) if not split_columns else (rows, rule.tail[0] // TENSOR_PARALLEL)
        shards.append((rule, layer, torch.zeros(shape, dtype=torch.bfloat16)))
    for _, _, values in shards:
        values.fill_(1)
    with measured(sum(values.nbytes for _, _, values in shards)) as figures:
        for rule, layer, values in shards:
            weights.fill(values, rule, layer, 0)
    return figures()


def _layers_of(source: Path) -> int:
    from nemo_ext.common.files import read_json

    return int(read_json(source / "config.json")["num_hidden_layers"])
