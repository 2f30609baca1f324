"""The contract between the engine and a model family. No torch, so that planning works on a login node.

A family is three files: `presets` (sizes with their sources, and the `FAMILY` object below), `model` (Hugging Face
config -> Megatron config) and `mapping` (Hugging Face tensor names <-> Megatron's). The Hugging Face `config.json`,
as a plain dict, is the single source of the architecture; Megatron's config is derived from it and never the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import ConfigError, nearest
from nemo_ext.common.files import read_json
from nemo_ext.common.registry import Registry, load_object

VOCABULARY_MULTIPLE = 128  # independent of tp, so that checkpoints of all layouts have the same shapes

FAMILIES = Registry(
    "model family",
    "sibol.models",
    {
        "bert": "nemo_ext.models.bert.presets:FAMILY",
        "gemma3": "nemo_ext.models.gemma3.presets:FAMILY",
        "gpt2": "nemo_ext.models.gpt2.presets:FAMILY",
        "llama": "nemo_ext.models.llama.presets:FAMILY",
        "modernbert": "nemo_ext.models.modernbert.presets:FAMILY",
        "qwen2": "nemo_ext.models.qwen2.presets:FAMILY",
        "qwen3": "nemo_ext.models.qwen3.presets:FAMILY",
    },
)


@dataclass(frozen=True)
class ModelFamily:
    """One architecture: its sizes, and where its Megatron side is implemented (`"module:function"`, imported late).

    megatron_config: `(hf_config, **megatron_fields) -> DecoderConfig` (a NeMo GPTConfig).
    refuse_unexpressible: `(hf_config) -> None`; raises ConversionError for any field of the Hugging Face config that
        Megatron would not compute as transformers does. Needs no torch; `megatron_config` calls it too.
    mapping: `(hf_config, padded_vocab_size) -> list[Rule]`.
    normal_form: a config.json's content -> the config that a run keeps: of a multimodal model the text part, and with the fields
        that the rest of the program asks for.
    objective: "causal" or "masked": what its language modelling head predicts, and so which tasks it can learn.
    """

    name: str
    model_types: tuple[str, ...]
    presets: Mapping[str, Mapping[str, Any]]
    megatron_config: str
    refuse_unexpressible: str
    mapping: str
    free_fields: frozenset[str] = field(default_factory=frozenset)
    normal_form: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    objective: str = "causal"

    def hf_config(self, preset: str, overrides: Mapping[str, Any], vocab_size: int | None = None) -> dict[str, Any]:
        """Hugging Face config of a preset with `overrides` applied and, if given, the tokenizer's `vocab_size`.

        Raises ConfigError for an unknown preset or for a field that this architecture does not have.
        """
        if preset not in self.presets:
            raise ConfigError(f"Family {self.name!r} has no preset {preset!r}.{nearest(preset, self.presets)}")
        config = dict(self.presets[preset])
        known = {*config, *self.free_fields}
        for key in overrides:
            if key not in known:
                raise ConfigError(f"model.overrides.{key}: family {self.name!r} has no such field.{nearest(key, known)}")
        config.update(overrides)
        if vocab_size is not None:
            config["vocab_size"] = vocab_size
        return config

    def check(self, hf_config: Mapping[str, Any]) -> None:
        """Raise ConversionError, naming field and value, unless Megatron can compute this config as transformers does."""
        load_object(self.refuse_unexpressible)(hf_config)

    def build_megatron_config(self, hf_config: Mapping[str, Any], **megatron_fields: Any) -> Any:
        """Megatron/NeMo config of this architecture; `megatron_fields` are parallel sizes, dtypes, dropout and so on."""
        return load_object(self.megatron_config)(hf_config, **megatron_fields)

    def build_mapping(self, hf_config: Mapping[str, Any]) -> list[Any]:
        """The mapping table of this architecture at this size, with the vocabulary padded for Megatron."""
        return load_object(self.mapping)(hf_config, padded_vocab_size(hf_config["vocab_size"]))


def family_of(hf_config: Mapping[str, Any]) -> ModelFamily:
    """The family that reads this Hugging Face config, by its `model_type`. Raises ConfigError when there is none."""
    model_type = hf_config.get("model_type")
    by_type = {kind: family for name in FAMILIES.names() for family in [FAMILIES.get(name)] for kind in family.model_types}
    if model_type not in by_type:
        raise ConfigError(f"No model family reads model_type={model_type!r}.{nearest(str(model_type), by_type)}")
    return by_type[model_type]


def read_model_config(folder: Path) -> dict[str, Any]:
    """The config of a Hugging Face folder's language model, in its family's normal form. Raises ConfigError as `family_of` does.

    An imported checkpoint and a run keep it in `model/`.
    """
    inside = folder / "model" / "config.json"
    hf_config = read_json(inside if inside.is_file() else folder / "config.json", "Hugging Face config")
    return family_of(hf_config).normal_form(hf_config)


def padded_vocab_size(vocab_size: int) -> int:
    """Rows of Megatron's embedding for a vocabulary of `vocab_size` tokens: the next multiple of 128."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
