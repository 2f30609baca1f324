"""What plugins cost beside encoding, how fast a split table is built, and whether plugins follow their laws. In this process."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nemo_ext.tokenizers import TextTokenizer

PLUGIN_SETTINGS: dict[str, dict[str, Any]] = {"stochastok": {"expand_prop": 0.1}, "patok": {"contract_prop": 0.9, "expand_prop": 0.1}}
DOCUMENT_TOKENS = (100, 1_000, 10_000, 100_000)
BYTES_PER_TOKEN = 4  # of the benchmark's text, roughly; lengths are reported as measured
SAMPLE_TEXT = "pinagsisibulan number"
PATOK_TEXT, PATOK_WINDOWS = "Ang nagtubo ay pagdahon kasulatan", 4


def plugin_costs(tokenizer_dir: str, text_bytes: int, rounds: int) -> Callable[[], list[dict[str, Any]]]:
    """CPU seconds of `tokenizers`' encode_batch and of each plugin on the same documents, per length of document and round."""
    from tokenizers import Tokenizer

    from nemo_ext.tokenizers import load, plugins
    from recipes.bench.corpus import documents

    bare, tokenizer = Tokenizer.from_file(f"{tokenizer_dir}/tokenizer.json"), load(tokenizer_dir)
    encoder = tokenizer.fast_encoder or tokenizer
    made = {name: plugins.create(name, complete(name), tokenizer) for name in PLUGIN_SETTINGS if name in plugins.PLUGINS.names()}
    corpora = {tokens: list(documents(tokens * BYTES_PER_TOKEN, text_bytes)) for tokens in DOCUMENT_TOKENS}

    def measured(tokens: int) -> dict[str, Any]:
        texts = corpora[tokens]
        seconds = {"encode": cpu_s(lambda: bare.encode_batch(texts, add_special_tokens=False))}
        seconds["encode_in_prepare"] = cpu_s(lambda: encoder.encode_batch(texts))
        batch = tokenizer.encode_batch(texts)
        numbers = np.arange(batch.documents, dtype=np.uint64)
        for name, plugin in made.items():
            seconds[name] = cpu_s(lambda plugin=plugin: plugins.apply(plugin, batch, numbers, 1, tokenizer.vocab_size))  # type: ignore[misc]
        return {"document_tokens": len(batch.ids) / batch.documents, "tokens": len(batch.ids), "cpu_s": seconds}

    def work() -> list[dict[str, Any]]:
        for tokens in DOCUMENT_TOKENS:
            measured(tokens)  # compiles, or loads what was compiled, and fills caches
        return [measured(tokens) for _ in range(rounds) for tokens in DOCUMENT_TOKENS]

    return work


def complete(name: str) -> dict[str, Any]:
    """The benchmark's settings of a plugin, filled up with its defaults."""
    from nemo_ext.tokenizers import plugins

    return plugins.parse_settings(name, [f"{key}={value}" for key, value in PLUGIN_SETTINGS[name].items()])


def split_table_s(vocab_size: int, rounds: int) -> Callable[[], list[float]]:
    """Seconds, per round, to build the split table of a made-up vocabulary: words, and a fifth of their pieces."""
    from nemo_ext.tokenizers.spelling import make_spelling
    from nemo_ext.tokenizers.split_table import build_split_table
    from recipes.bench.corpus import made_up_words

    tokens: dict[bytes, None] = {bytes([byte]): None for byte in range(256)}
    for word in made_up_words(np.random.default_rng(3), vocab_size // 4):
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            if len(tokens) < vocab_size and (end - start == len(word) or (start * 31 + end + len(word)) % 5 == 0):
                tokens[f"{' ' * (start == 0)}{word[start:end]}".encode()] = None
    spelled = list(tokens)
    ordinary = np.ones(len(spelled), dtype=bool)
    build_split_table(make_spelling(spelled[:1000], ordinary[:1000]))  # compiles, or loads what was compiled

    def seconds() -> float:
        began = time.monotonic()
        build_split_table(make_spelling(spelled, ordinary))
        return time.monotonic() - began

    def work() -> list[float]:
        assert len(spelled) == vocab_size
        return [seconds() for _ in range(rounds)]

    return work


def stochastok_distances(tokenizer_dir: str, samples: int) -> Callable[[], dict[str, float]]:
    """Total variation between outcomes of our StochasTok and of the published law, and between two runs of the law itself."""
    from nemo_ext.tokenizers import RaggedBatch, load, plugins
    from nemo_ext.tokenizers.ragged import from_lengths

    tokenizer = load(tokenizer_dir)
    ids = tokenizer.encode_batch([SAMPLE_TEXT]).ids
    expand_prop = 3 / len(ids)
    plugin = plugins.create("stochastok", {"expand_prop": expand_prop}, tokenizer)

    def ours() -> Counter[tuple[int, ...]]:
        batch: RaggedBatch = from_lengths(np.tile(ids, samples), np.full(samples, len(ids)))
        result = plugins.apply(plugin, batch, np.arange(samples, dtype=np.uint64), 1, tokenizer.vocab_size)
        return Counter(tuple(result.document(number).tolist()) for number in range(samples))

    table = splits_of(tokenizer)

    def law(seed: int) -> Counter[tuple[int, ...]]:
        generator = random.Random(seed)
        return Counter(tuple(expand(ids.tolist(), expand_prop, table, generator)) for _ in range(samples))

    def work() -> dict[str, float]:
        first, second = law(1), law(2)
        return {"ours": total_variation(ours(), first), "law": total_variation(second, first), "outcomes": len(first)}

    return work


def patok_distances(tokenizer_dir: str, samples: int) -> Callable[[], dict[str, float]]:
    """Total variation between outcomes of our Patok's windows and of its law, and between two runs of the law; windows and refusals."""
    from nemo_ext.tokenizers import load, plugins
    from nemo_ext.tokenizers.ragged import from_lengths
    from recipes.bench.patok_law import WrittenLaw

    tokenizer = load(tokenizer_dir)
    ids = tokenizer.encode_batch([PATOK_TEXT]).ids
    contract_prop = PATOK_WINDOWS / len(ids) + 1e-9
    settings = plugins.parse_settings("patok", [f"contract_prop={contract_prop}", "expand_prop=0"])
    plugin, numbers = plugins.create("patok", settings, tokenizer), np.arange(samples, dtype=np.uint64)
    law = WrittenLaw(tokenizer, PATOK_TEXT, random.Random(1))

    def expected() -> Counter[tuple[int, ...]]:
        return Counter(law.contracted(ids.tolist(), PATOK_WINDOWS) for _ in range(samples))

    def work() -> dict[str, float]:
        batch = from_lengths(np.tile(ids, samples), np.full(samples, len(ids)))
        result = plugins.apply(plugin, batch, numbers, 1, tokenizer.vocab_size)
        found = Counter(tuple(result.document(number).tolist()) for number in range(samples))
        first, second = expected(), expected()
        return {
            "ours": total_variation(found, first),
            "law": total_variation(second, first),
            "outcomes": len(first),
            "windows_a_token": plugin.counts["windows"] / len(batch.ids),
            "contract_prop": contract_prop,
            "refusals_a_window": plugin.counts["draws_refused"] / plugin.counts["windows"],
            "refusals_a_window_of_the_law": law.counts["draws_refused"] / (2 * PATOK_WINDOWS * samples),
        }

    return work


def splits_of(tokenizer: TextTokenizer) -> dict[int, list[tuple[int, int]]]:
    """Every pair of tokens that a token splits into, by a dict of all spellings; special and byte-fallback tokens take no part."""
    spelled = {number: text for number, text in enumerate(tokenizer.token_bytes) if text and tokenizer.spelling.ordinary[number]}
    by_bytes = {text: number for number, text in spelled.items()}

    def splits(text: bytes) -> list[tuple[int, int]]:
        halves = ((by_bytes.get(text[:cut]), by_bytes.get(text[cut:])) for cut in range(1, len(text)))
        return [(left, right) for left, right in halves if left is not None and right is not None]

    return {number: splits(text) for number, text in spelled.items()}


def expand(ids: list[int], expand_prop: float, table: dict[int, list[tuple[int, int]]], generator: random.Random) -> list[int]:
    """The published law, written out (Sims et al. 2025): attempts at uniform positions of the list as it is."""
    for _ in range(int(expand_prop * len(ids) + 1e-9)):
        position = generator.randrange(len(ids))
        if splits := table.get(ids[position]):
            ids[position : position + 1] = generator.choice(splits)
    return ids


def total_variation(first: Counter[tuple[int, ...]], second: Counter[tuple[int, ...]]) -> float:
    """Half the sum of differences between two empirical distributions of as many samples."""
    return sum(abs(first[outcome] - second[outcome]) for outcome in first.keys() | second.keys()) / (2 * first.total())


def cpu_s(work: Callable[[], Any]) -> float:
    """CPU seconds of this process, all threads, during `work`."""
    began = time.process_time()
    work()
    return time.process_time() - began
