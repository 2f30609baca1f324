"""The seam for tokenizer plugins: token ids to token ids on a ragged batch, never through text.

A plugin is a class with a `name`, a settings dataclass and a call. Decoding in the middle of the data path would erase what
the plugin did (encoding again gives the plain ids back), so what it returns is what is stored, once `apply` has proved that it
spells the same text. What a plugin did is counted in `Plugin.counts`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_ext.common.errors import ConfigError, DataError, nearest
from nemo_ext.common.registry import Registry
from nemo_ext.config.checks import check_values
from nemo_ext.tokenizers.ragged import RaggedBatch, from_lengths
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer

BLOCK_TOKENS = 1 << 18  # of longer documents the plugin is given one block after the other; Patok takes about 100 bytes a token

PLUGINS = Registry(
    "tokenizer plugin",
    "sibol.tokenizers",
    {
        "vanilla": "nemo_ext.tokenizers.vanilla:Vanilla",
        "stochastok": "nemo_ext.tokenizers.stochastok:Stochastok",
        "patok": "nemo_ext.tokenizers.patok:Patok",
    },
)


class TokenTransform(Protocol):
    """A tokenizer plugin. It is made anew in every worker from its name, its settings and the tokenizer.

    The result must depend on nothing but the ids, `document_ids` and `seed`: then the dataset is the same for any number
    of workers and any order of documents. It must spell the same text with the same control tokens, and leave the batch as it is.
    A plugin may have an attribute `counts`, a Counter of what it did; `apply` empties it after every call.
    """

    name: str
    settings_type: type  # a dataclass; fields made with nemo_ext.config.schema.setting carry help and limits
    settings: Any

    def __init__(self, settings: Any, tokenizer: TextTokenizer) -> None: ...

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        """Map the ids of every document. `document_ids` [documents] are stable numbers to key random choices by, with `seed`."""
        ...


def parse_settings(name: str, assignments: Sequence[str]) -> dict[str, Any]:
    """All settings of plugin `name`: defaults changed by `key=value` or `name.key=value` texts, values being YAML.

    Raises ConfigError for an unknown plugin, an unknown key, a missing `=`, and a value of the wrong type or out of limits.
    """
    settings_type = PLUGINS.get(name).settings_type
    known = [item.name for item in dataclasses.fields(settings_type)]
    tree = OmegaConf.structured(settings_type)
    for text in assignments:
        key, equals, raw = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r} has no '='. Write it as key=value.")
        key = key.removeprefix(f"{name}.")
        if key not in known:
            raise ConfigError(f"Tokenizer plugin {name!r} has no setting {key!r}.{nearest(key, known)}")
        try:
            OmegaConf.update(tree, key, yaml.safe_load(raw))
        except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{raw!r} does not fit plugin setting {name}.{key} ({str(error).splitlines()[0]}).") from None
    settings: Any = OmegaConf.to_object(tree)
    check_values(settings, f"{name}.")
    return dataclasses.asdict(settings)


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A plugin made for a tokenizer. `counts` adds up over all calls of `apply`; whoever reads it may clear it.

    Always there: `documents`, `documents_changed`, `tokens_before`, `tokens_after`. The plugin's own counts stand beside them.
    """

    transform: TokenTransform
    tokenizer: TextTokenizer
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The plugin's own name."""
        return self.transform.name


def create(name: str, settings: Mapping[str, Any], tokenizer: TextTokenizer) -> Plugin:
    """The plugin `name` with complete `settings` (from `parse_settings`), for this tokenizer."""
    plugin_type = PLUGINS.get(name)
    return Plugin(plugin_type(plugin_type.settings_type(**settings), tokenizer), tokenizer)


def apply(plugin: Plugin, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int, vocab_size: int) -> RaggedBatch:
    """Run a plugin, check what it returned and count what it did. Documents longer than BLOCK_TOKENS are given to it in blocks.

    Raises DataError when documents were lost, ids lie outside the vocabulary, or a document spells another text than before.
    """
    if plugin.name != "vanilla" and int(batch.lengths.max(initial=0)) > BLOCK_TOKENS:
        result, changed = _apply_in_blocks(plugin, batch, document_ids, seed, vocab_size)
    else:
        result, verdicts = _apply_checked(plugin, batch, document_ids, seed, vocab_size)
        changed = int(np.count_nonzero(verdicts))
    sizes = {"documents": batch.documents, "documents_changed": changed, "tokens_before": len(batch.ids), "tokens_after": len(result.ids)}
    plugin.counts.update(sizes)
    return result


def _apply_in_blocks(
    plugin: Plugin, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int, vocab_size: int
) -> tuple[RaggedBatch, int]:
    """The result, and how many documents changed. Room for it is taken as it is filled: pages that are not touched cost nothing."""
    from nemo_ext.tokenizers.blocks import blocks_of  # brings numba, which vanilla does without

    ids, used = np.empty(2 * len(batch.ids), dtype=batch.ids.dtype), 0
    lengths, changed = np.zeros(batch.documents, dtype=np.int64), np.zeros(batch.documents, dtype=bool)
    for document, block, key in blocks_of(batch, document_ids, plugin.tokenizer.spelling, BLOCK_TOKENS):
        result, verdicts = _apply_checked(plugin, block, key, seed, vocab_size)
        end = used + len(result.ids)
        if end > len(ids):
            ids = np.concatenate([ids[:used], np.empty(len(ids) + len(result.ids), dtype=ids.dtype)])
        ids[used:end] = result.ids
        used, lengths[document], changed[document] = end, lengths[document] + end - used, changed[document] or bool(verdicts.any())
    return from_lengths(ids[:used], lengths), int(changed.sum())


def _apply_checked(
    plugin: Plugin, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int, vocab_size: int
) -> tuple[RaggedBatch, NDArray[np.uint8]]:
    """The result, and per document whether it changed."""
    result = plugin.transform(batch, document_ids, seed)
    _check_ids(plugin, batch, result, vocab_size)
    verdicts = np.zeros(batch.documents, dtype=np.uint8) if result is batch else _verdicts(plugin, batch, result, document_ids)
    if (own := getattr(plugin.transform, "counts", None)) is not None:
        plugin.counts.update(own)
        own.clear()
    return RaggedBatch(result.ids.astype(batch.ids.dtype, copy=False), result.offsets), verdicts


def _check_ids(plugin: Plugin, batch: RaggedBatch, result: RaggedBatch, vocab_size: int) -> None:
    if result.documents != batch.documents or result.offsets[-1] != len(result.ids):
        raise DataError(
            f"Tokenizer plugin {plugin.name!r} returned {result.documents} documents with {len(result.ids)} ids for offsets ending at "
            f"{result.offsets[-1]}; {batch.documents} documents were expected. This is a mistake in the plugin."
        )
    if len(result.ids) and not 0 <= int(result.ids.min()) <= int(result.ids.max()) < vocab_size:
        raise DataError(
            f"Tokenizer plugin {plugin.name!r} returned ids {int(result.ids.min())}..{int(result.ids.max())}, outside the vocabulary of "
            f"{vocab_size}. This is a mistake in the plugin."
        )


def _verdicts(plugin: Plugin, batch: RaggedBatch, result: RaggedBatch, document_ids: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Per document 0 where the ids are the same, else another number."""
    from nemo_ext.tokenizers.result_check import OTHER_TEXT, compare  # brings numba, which vanilla does without

    verdicts = compare(batch, result, plugin.tokenizer.spelling)
    wrong = np.flatnonzero(verdicts == OTHER_TEXT)
    if len(wrong):
        raise DataError(
            f"Tokenizer plugin {plugin.name!r} changed the text of {len(wrong)} document(s) or moved their control tokens, the first being "
            f"number {document_ids[wrong[0]]}, {wrong[0] + 1} of its batch. Only the cuts between tokens may change. "
            "This is a mistake in the plugin."
        )
    return verdicts
