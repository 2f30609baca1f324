"""The seam for tokenizer plugins: token ids to token ids on a ragged batch, never through text.

A plugin is a class with a `name`, a settings dataclass and a call. Decoding in the middle of the data path would erase what
the plugin did (encoding again gives the plain ids back), so what it returns is what is stored.
"""

from __future__ import annotations

import dataclasses
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
from nemo_ext.tokenizers.ragged import RaggedBatch
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer

PLUGINS = Registry("tokenizer plugin", "sibol.tokenizers", {"vanilla": "nemo_ext.tokenizers.vanilla:Vanilla"})


class TokenTransform(Protocol):
    """A tokenizer plugin. It is made anew in every worker from its name, its settings and the tokenizer.

    The result must depend on nothing but the ids, `document_ids` and `seed`: then the dataset is the same for any number
    of workers and any order of documents.
    """

    name: str
    settings_type: type  # a dataclass; fields made with nemo_ext.config.schema.setting carry help and limits
    settings: Any

    def __init__(self, settings: Any, tokenizer: TextTokenizer) -> None: ...

    def __call__(self, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int) -> RaggedBatch:
        """Map the ids of every document. `document_ids` [documents] are stable numbers to key random choices by, with `seed`."""
        ...


def parse_settings(name: str, assignments: Sequence[str]) -> dict[str, Any]:
    """All settings of plugin `name`: defaults changed by `key=value` texts, values being YAML.

    Raises ConfigError for an unknown plugin, an unknown key, a missing `=`, and a value of the wrong type or out of limits.
    """
    settings_type = PLUGINS.get(name).settings_type
    known = [item.name for item in dataclasses.fields(settings_type)]
    tree = OmegaConf.structured(settings_type)
    for text in assignments:
        key, equals, raw = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r} has no '='. Write it as key=value.")
        if key not in known:
            raise ConfigError(f"Tokenizer plugin {name!r} has no setting {key!r}.{nearest(key, known)}")
        try:
            OmegaConf.update(tree, key, yaml.safe_load(raw))
        except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--set {text!r}: {raw!r} does not fit {name}.{key} ({str(error).splitlines()[0]}).") from None
    settings: Any = OmegaConf.to_object(tree)
    check_values(settings, f"{name}.")
    return dataclasses.asdict(settings)


def create(name: str, settings: Mapping[str, Any], tokenizer: TextTokenizer) -> TokenTransform:
    """The plugin `name` with complete `settings` (from `parse_settings`), for this tokenizer."""
    plugin_type = PLUGINS.get(name)
    plugin: TokenTransform = plugin_type(plugin_type.settings_type(**settings), tokenizer)
    return plugin


def apply(plugin: TokenTransform, batch: RaggedBatch, document_ids: NDArray[np.uint64], seed: int, vocab_size: int) -> RaggedBatch:
    """Run a plugin and check what it returned. Raises DataError when documents were lost or ids lie outside the vocabulary."""
    result = plugin(batch, document_ids, seed)
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
    return RaggedBatch(result.ids.astype(batch.ids.dtype, copy=False), result.offsets)
