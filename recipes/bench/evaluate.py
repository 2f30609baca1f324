"""Multiple choice beside the model alone: a suite from its file to its summary, and bare forward passes of the very same batches.

The batches of the suite's first turn are kept (padding, masks, and at which positions logits were asked for), so that the bare passes do
exactly the work of the model. Both take turns in one process on one loaded model, after a few items to warm up; another one begins
each round.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from recipes.bench.data import Claim

GOAL = 1.10
CONTENDERS = ("suite", "bare passes")
OPTIONS = 4
WARM_UP_ITEMS = 50
PROMPT_BYTES = 120  # longest; texts of items are as mixed as sentences are


def compare(size: str, items: int, rounds: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Wall and CPU seconds of both in each round, and what was scored."""
    import torch

    from evaluation.loading import load_model, open_folder
    from recipes.bench.train import SIZES, make_dataset, make_model

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="sibol-bench-") as place:
        folder = Path(place)
        make_model(*SIZES[size], make_dataset(folder), folder / "model")
        write_items(folder / "warm_up.jsonl", WARM_UP_ITEMS)
        write_items(folder / "items.jsonl", items)
        model = load_model(open_folder(folder / "model"))
        run_suite(model, folder / "warm_up.jsonl")
        return take_turns(model, folder / "items.jsonl", rounds, log)


def take_turns(model: Any, path: Path, rounds: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of both on the items of a file, in turns."""
    network, batches = model.network.model, list[dict[str, Any]]()
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for turn in range(rounds):
        for offset in range(len(CONTENDERS)):
            name = CONTENDERS[(turn + offset) % len(CONTENDERS)]
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            if name == "bare passes":
                run_bare(network, batches)
            elif batches:
                items = run_suite(model, path)
            else:
                with recorded_batches(network) as batches:
                    items = run_suite(model, path)
            turns[name].append({"wall_s": time.perf_counter() - wall_s, "cpu_s": time.process_time() - cpu_s})
            log(f"{name}: {turns[name][-1]['wall_s']:.2f} s, {turns[name][-1]['cpu_s']:.2f} CPU s")
    positions = sum(batch["attention_mask"].numel() for batch in batches)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    shape = {"items": items, "batches": len(batches), "positions": positions, "tokens": tokens, "device": str(model.device)}
    return shape | {"turns": turns}


def claims(found: dict[str, Any]) -> list[Claim]:
    """The ratio of the medians over rounds, in wall time, which is what users wait, and in CPU time, which other programs disturb less."""
    made = []
    for unit, what in (("wall_s", "time"), ("cpu_s", "CPU time")):
        suite, bare = (median(turn[unit] for turn in found["turns"][name]) for name in CONTENDERS)
        made.append(
            Claim(f"{found['items']:,} multiple-choice items: {what} of the suite / bare passes of the same batches", suite / bare, GOAL)
        )
    return made


def write_items(path: Path, count: int) -> None:
    """Sentences whose next words are to be chosen among those of other sentences."""
    import numpy

    from recipes.bench.corpus import sentences

    generator = numpy.random.default_rng(6)
    texts = [text.split() for language in sentences(3) for text in language]
    texts = [words for words in texts if len(words) > 4 and len(" ".join(words)) < PROMPT_BYTES]
    with path.open("w", encoding="utf-8") as handle:
        for number in range(count):
            chosen = [texts[place] for place in generator.integers(0, len(texts), OPTIONS)]
            length = int(generator.integers(1, 4))
            options = list(dict.fromkeys(" ".join(words[-length:]) for words in chosen))
            options += [f"{options[0]} {extra}" for extra in range(OPTIONS - len(options))]
            item = {"id": str(number), "prompt": " ".join(chosen[0][:-length]), "options": options, "gold": options[0], "language": "en"}
            handle.write(json.dumps(item) + "\n")


def run_suite(model: Any, path: Path) -> int:
    """All that `sibol evaluate` does with a loaded model before it writes files; how many items there were."""
    from evaluation.suites import Settings
    from evaluation.suites.multiple_choice import SUITE

    settings = Settings()
    items = SUITE.read(path, settings)
    summary = SUITE.summarise([SUITE.score(model, items, settings, lambda _: None)], settings)
    return len(summary.rows)


@contextmanager
def recorded_batches(network: Any) -> Iterator[list[dict[str, Any]]]:
    """The arguments of every forward pass of `network` within the block."""
    batches: list[dict[str, Any]] = []
    hook = network.register_forward_pre_hook(lambda _module, _args, kwargs: batches.append(kwargs), with_kwargs=True)
    try:
        yield batches
    finally:
        hook.remove()


def run_bare(network: Any, batches: list[dict[str, Any]]) -> None:
    """The forward passes alone; one value of each is read, so that none is still under way on a GPU when the clock stops."""
    import torch

    with torch.inference_mode():
        for batch in batches:
            network(**batch).logits[0, 0, 0].item()
