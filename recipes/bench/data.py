"""Preparing data beside what others would use: CPU seconds, scaling, memory, and the cost of plugins, all in one interleaved run.

Two vocabularies of 32,000, trained here: byte-level as GPT-2, and metaspace with byte fallback as Gemma. Each contender's turn is
a fresh process; contenders take turns, so that a machine that slows down slows all of them. Figures are medians over rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from recipes.bench.encoders import bare_encode_batch, sibol_prepare, usual_way
from recipes.bench.measure import Cost, measure
from recipes.bench.treatments import PLUGIN_SETTINGS, patok_distances, plugin_costs, split_table_s, stochastok_distances

KINDS = ("gpt2", "gemma")
VOCABULARY = 32_000
TRAINING_BYTES = 24_000_000
DOCUMENT_BYTES = 3600  # about 900 tokens, as in the published figures
TABLE_VOCABULARY = 262_144
PLUGIN_GOALS = {"stochastok": 1.1, "patok": 1.5}
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sizes:
    """How much is measured. Memory is measured on a file of its own, with one long line."""

    text_bytes: int
    plugin_bytes: int
    memory_bytes: int
    line_bytes: int
    rounds: int
    samples: int
    kinds: tuple[str, ...] = KINDS


@dataclass(frozen=True)
class Claim:
    """A figure with its goal: `measured` is to be at most `goal`, or at least when `at_least`."""

    what: str
    measured: float
    goal: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    @property
    def goal_text(self) -> str:
        """The goal in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.goal:g}"


@dataclass(frozen=True)
class Part:
    """One group of measurements: what it found and what that says about the claims."""

    figures: Any
    claims: list[Claim]


class DataBench:
    """The parts of the benchmark, in a folder of their own."""

    def __init__(self, folder: Path, sizes: Sizes, log: Callable[[str], None]) -> None:
        self.folder, self.sizes, self.log = folder, sizes, log

    def prepare_inputs(self) -> None:
        """Write the corpus and train the two tokenizers."""
        from nemo_ext.tokenizers import train
        from recipes.bench.corpus import documents, write_corpus

        write_corpus(self.corpus, DOCUMENT_BYTES, self.sizes.text_bytes)
        for kind in self.sizes.kinds:
            train(documents(DOCUMENT_BYTES, TRAINING_BYTES, seed=2), VOCABULARY, self.folder / kind, kind=kind)

    @property
    def corpus(self) -> Path:
        """The text that is encoded."""
        return self.folder / "corpus.jsonl"

    def encode(self) -> Part:
        """CPU seconds of the bare tokenizer, of prepare and of the usual way, and the speed-up by a second worker."""
        corpus, out = str(self.corpus), str(self.folder / "out")
        contenders: dict[str, tuple[Any, ...]] = {
            "bare encode_batch": (bare_encode_batch,),
            "sibol data prepare": (sibol_prepare, out, 1),
            "sibol data prepare, 2 workers": (sibol_prepare, out, 2),
            "usual way (pool of 1)": (usual_way, out, 1, "transformers"),
            "usual way without transformers": (usual_way, out, 1, "tokenizers"),
        }
        figures: dict[str, Any] = {}
        claims: list[Claim] = []
        for kind in self.sizes.kinds:
            costs: dict[str, list[Cost]] = {name: [] for name in contenders}
            for name in self._in_turn(list(contenders)):
                setup, *arguments = contenders[name]
                costs[name].append(measure(setup, str(self.folder / kind), corpus, *arguments))
                self.log(f"{kind}, {name}: {costs[name][-1].cpu_s:.2f} CPU s, {costs[name][-1].wall_s:.2f} s")
            tokens = {cost.result for own in costs.values() for cost in own}
            assert len(tokens) == 1, f"contenders gave {tokens} tokens"
            figures[kind] = {"tokens": tokens.pop(), "costs": {name: summary(own) for name, own in costs.items()}}
            claims += encode_claims(kind, figures[kind]["costs"])
        return Part(figures, claims)

    def plugins(self) -> Part:
        """CPU seconds of plugins beside encoding, at four lengths of documents."""
        figures: dict[str, Any] = {}
        claims: list[Claim] = []
        for kind in self.sizes.kinds:
            self.log(f"{kind}: plugins")
            rows = measure(plugin_costs, str(self.folder / kind), self.sizes.plugin_bytes, self.sizes.rounds).result
            figures[kind] = []
            for length in dict.fromkeys(row["document_tokens"] for row in rows):
                own = [row["cpu_s"] for row in rows if row["document_tokens"] == length]
                seconds = {name: median(row[name] for row in own) for name in own[0]}
                ratios = {name: median(1 + row[name] / row["encode"] for row in own) for name in own[0] if name in PLUGIN_GOALS}
                figures[kind].append({"document_tokens": length, "cpu_s": seconds, "ratios": ratios})
                for name, ratio in ratios.items():
                    settings = ", ".join(f"{key} {value}" for key, value in PLUGIN_SETTINGS[name].items())
                    what = f"{kind}: encode + {name} ({settings}) / encode, {length:,.0f} tokens"
                    claims.append(Claim(what, ratio, PLUGIN_GOALS[name]))
        return Part(figures, claims)

    def memory(self) -> Part:
        """Peak memory of the largest worker on a large input with one long line."""
        from recipes.bench.corpus import write_corpus

        sizes, large = self.sizes, self.folder / "large.jsonl"
        write_corpus(large, DOCUMENT_BYTES, sizes.memory_bytes, sizes.line_bytes)
        figures: dict[str, Any] = {"input_bytes": large.stat().st_size, "line_bytes": sizes.line_bytes}
        claims = []
        for kind in self.sizes.kinds:
            self.log(f"{kind}: memory")
            cost = measure(sibol_prepare, str(self.folder / kind), str(large), str(self.folder / "out"), 2)
            figures[kind] = {"worker_peak_bytes": cost.worker_peak_bytes, "parent_peak_bytes": cost.peak_bytes, "wall_s": cost.wall_s}
            what = (
                f"{kind}: peak MB of a worker, input of {large.stat().st_size / 1e6:,.0f} MB, longest line {sizes.line_bytes / 1e6:,.0f} MB"
            )
            claims.append(Claim(what, cost.worker_peak_bytes / 1e6, 500))
        large.unlink()
        return Part(figures, claims)

    def table(self) -> Part:
        """Seconds to build the split table of a large vocabulary."""
        self.log("split table")
        seconds = measure(split_table_s, TABLE_VOCABULARY, self.sizes.rounds).result
        return Part({"seconds": seconds}, [Claim(f"seconds to build the split table of {TABLE_VOCABULARY:,} tokens", median(seconds), 2)])

    def distribution(self) -> Part:
        """Total variation of plugins from their laws, beside that of the laws from themselves; windows and refusals of Patok."""
        figures: dict[str, Any] = {}
        claims = []
        for kind in self.sizes.kinds:
            self.log(f"{kind}: distribution")
            laws = {"StochasTok": stochastok_distances, "Patok": patok_distances}
            figures[kind] = {name: measure(law, str(self.folder / kind), self.sizes.samples).result for name, law in laws.items()}
            for name, found in figures[kind].items():
                what = f"{kind}: total variation of {name} from its law / of the law from itself"
                claims.append(Claim(what, found["ours"] / found["law"], 1.1))
            patok = figures[kind]["Patok"]
            windows, refusals = patok["windows_a_token"] / patok["contract_prop"], "refusals_a_window"
            claims.append(Claim(f"{kind}: Patok's windows a token from contract_prop, relative", abs(windows - 1), 0.001))
            relative = abs(patok[refusals] / patok[f"{refusals}_of_the_law"] - 1)
            claims.append(Claim(f"{kind}: Patok's refusals a window from the law's, relative", relative, 0.02))
        return Part(figures, claims)

    def _in_turn(self, names: list[str]) -> Iterator[str]:
        for turn in range(self.sizes.rounds):
            for offset in range(len(names)):  # another one begins each round
                yield names[(turn + offset) % len(names)]


PARTS: dict[str, Callable[[DataBench], Part]] = {
    "encode": DataBench.encode,
    "plugins": DataBench.plugins,
    "memory": DataBench.memory,
    "table": DataBench.table,
    "distribution": DataBench.distribution,
}


def summary(costs: list[Cost]) -> dict[str, float]:
    """Medians over the rounds, and the range of CPU seconds."""
    cpu = [cost.cpu_s for cost in costs]
    return {"cpu_s": median(cpu), "cpu_s_low": min(cpu), "cpu_s_high": max(cpu), "wall_s": median(cost.wall_s for cost in costs)}


def encode_claims(kind: str, costs: dict[str, dict[str, float]]) -> list[Claim]:
    """The claims about prepare from the costs of all contenders."""
    prepare = costs["sibol data prepare"]
    speed_up = prepare["wall_s"] / costs["sibol data prepare, 2 workers"]["wall_s"]
    return [
        Claim(f"{kind}: CPU s of prepare / bare encode_batch", prepare["cpu_s"] / costs["bare encode_batch"]["cpu_s"], 1.15),
        Claim(f"{kind}: CPU s of prepare / usual way", prepare["cpu_s"] / costs["usual way (pool of 1)"]["cpu_s"], 0.4),
        Claim(f"{kind}: speed of 2 workers / 1 worker", speed_up, 1.8, at_least=True),
    ]
