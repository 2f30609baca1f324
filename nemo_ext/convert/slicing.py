"""Layer surgery: a Hugging Face folder with some of another's layers, and all of its embeddings, final norm and head.

Works through the family's mapping table, piece by piece, so no model is built and every tensor is accounted for. Which layer is
local and which global goes with the layer. Nothing is trained or healed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConfigError, ConversionError
from nemo_ext.common.files import read_json, refuse_existing, sha256_of_file, sha256_of_json, write_json
from nemo_ext.common.hf_config import own_name
from nemo_ext.convert.hf_folder import write_model_files
from nemo_ext.convert.provenance import provenance_record
from nemo_ext.convert.rules import Rule, Table
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.convert.staging import Progress, staged_folder

if TYPE_CHECKING:
    import torch

    from nemo_ext.convert.stream import StreamReport

PATTERN_FIELDS = ("sliding_window_pattern", "_sliding_window_pattern")  # Gemma 3's rule for layer_types; a list replaces it


class SlicedWeights:
    """A weight source whose layer i is layer `layers[i]` of `source`."""

    def __init__(self, source: HuggingFaceWeights, layers: Sequence[int]) -> None:
        self.name, self.source, self.layers = source.name, source, layers

    def fill(self, destination: torch.Tensor, rule: Rule, layer: int | None, row: int, column: int = 0) -> None:
        self.source.fill(destination, rule, None if layer is None else self.layers[layer], row, column)

    def identity(self) -> dict[str, Any]:
        return {**self.source.identity(), "layers": list(self.layers)}


def choose_layers(count: int, layers: Sequence[int] | None = None, first: int | None = None, every: int | None = None) -> list[int]:
    """The layers to keep of `count`: those listed, or the `first` so many, or 0 and `every` so manieth after it.

    Raises ConfigError unless exactly one way is chosen and names existing layers in rising order.
    """
    if (layers is None) + (first is None) + (every is None) != 2:
        raise ConfigError("Say which layers to keep in exactly one way: --layers 0,2,4 or --first N or --every K.")
    if layers is not None:
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= count:
            raise ConfigError(f"--layers {','.join(map(str, layers))}: expected layers from 0 to {count - 1}, each once, in rising order.")
        return list(layers)
    option, number = ("--first", first) if first is not None else ("--every", every)
    if not 1 <= number <= count:  # type: ignore[operator]
        raise ConfigError(f"{option} {number}: the model has {count} layers. Expected 1 to {count}.")
    return list(range(first)) if first is not None else list(range(0, count, every))  # type: ignore[arg-type]


def sliced_config(hf_config: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """The Hugging Face config of a model of these layers, each of its own kind (local or global).

    Raises ConversionError when the architecture has a fixed pattern of kinds (ModernBERT) that these layers do not follow.
    """
    from transformers import AutoConfig

    config = {**hf_config, own_name(hf_config, "num_hidden_layers"): len(layers)}
    full = AutoConfig.for_model(**hf_config)
    kinds = getattr(full, "layer_types", None)
    if kinds and ("layer_types" in hf_config or len(set(kinds)) > 1):
        config["layer_types"] = [kinds[layer] for layer in layers]
        for name in PATTERN_FIELDS:
            config.pop(name, None)
    elif hasattr(full, "global_attn_every_n_layers"):
        config["global_attn_every_n_layers"] = _global_period(full.global_attn_every_n_layers, layers)
    return config


def _global_period(period: int, layers: Sequence[int]) -> int:
    """The period with which global layers follow each other from layer 0 on, once only `layers` are kept."""
    is_global = [layer % period == 0 for layer in layers]
    for candidate in range(1, len(layers) + 1):
        if is_global == [index % candidate == 0 for index in range(len(layers))]:
            return candidate
    kinds = ", ".join(f"{layer} {'global' if kind else 'local'}" for layer, kind in zip(layers, is_global, strict=True))
    raise ConversionError(
        f"Layers {kinds}: this architecture's config can only say that every n-th layer from the first on is global. "
        f"Keep layers in that order, such as the first N or every multiple of {period}."
    )


def slice_layers(
    hf_dir: Path | str,
    out_dir: Path | str,
    layers: Sequence[int],
    dtype: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> StreamReport:
    """Write the Hugging Face folder `out_dir` with the given layers of `hf_dir`, its tokenizer and its other files.

    dtype: "fp32", "bf16" or "fp16"; None keeps the stored one. Which layers came from where is in provenance.json.
    Raises ConversionError when weights and config.json do not belong together, or a layer cannot stand where it would.
    """
    from nemo_ext.convert.stream import stream_weights, torch_dtype
    from nemo_ext.models.family import family_of, read_model_config

    refuse_existing(out_dir, overwrite)
    hf_config = read_model_config(Path(hf_dir))
    config, family = sliced_config(hf_config, layers), family_of(hf_config)
    for described in (hf_config, config):
        family.check(described)
    rules = family.build_mapping(config)
    source = HuggingFaceWeights(hf_dir, family.build_mapping(hf_config))
    _check_places(source.table, Table(rules, len(layers)), layers)
    target = torch_dtype(dtype) if dtype else source.stored_dtype()
    name, kept = str(target).removeprefix("torch."), SlicedWeights(source, layers)
    plan = {"kind": "slice", "source": kept.identity(), "config": sha256_of_json(config), "dtype": name}
    with staged_folder(out_dir, plan, overwrite) as staged:
        written = stream_weights(Table(rules, len(layers)), kept, staged, target, progress=progress)
        write_model_files(staged.content, config, name, hf_dir)
        write_json(staged.content / "provenance.json", _record(source, layers, {"dtype": name, **asdict(written)}))
    return written


def _check_places(before: Table, after: Table, layers: Sequence[int]) -> None:
    """Raise ConversionError when a layer has other tensors than the model has at the layer's new place."""
    old: dict[int | None, set[str]] = {}
    new: dict[int | None, set[str]] = {}
    for table, keys in ((before, old), (after, new)):
        for rule, layer in table.entries():
            keys.setdefault(layer, set()).add(rule.key)
    for place, layer in enumerate(layers):
        different = old[layer] ^ new[place]
        if different:
            raise ConversionError(
                f"Layer {layer} cannot become layer {place}: only one of them has {', '.join(sorted(different))}. Keep layer {place} there."
            )


def _record(source: HuggingFaceWeights, layers: Sequence[int], weights: Mapping[str, Any]) -> dict[str, Any]:
    earlier = source.directory / "provenance.json"
    origin = {
        "folder": str(source.directory),
        "weights": source.name,  # says which parts of a multimodal model are not in it
        "config_sha256": sha256_of_file(source.directory / "config.json"),
        "num_layers": source.table.num_layers,
        "tensors_left_out": sorted(set(source.reader.tensors) - set(source.table.hf_shapes)),  # tied copies and derived buffers
        "provenance": read_json(earlier, "provenance of the source") if earlier.is_file() else None,
    }
    return provenance_record({"source": origin, "kept_layers": list(layers), "weights": dict(weights)})
