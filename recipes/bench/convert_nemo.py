"""What NeMo's own importer and exporter take, on one small model, beside ours: each holds the model more than once.

They look for the norms where Transformer Engine's layers have them. Without it, as on a CPU, NeMo 2.7.3 imports norms of one, with a
warning, and exports nothing, so its exporter is told the names here; only memory is of interest, not the result. Memory is all that the
process holds, mapped files included, for NeMo's side reads the model through a map.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipes.bench.convert import Figures, _export, _import, held_bytes, in_process, measured, write_hf_folder

# A Qwen2 of 0.3 billion parameters: large beside the libraries, small beside a laptop's memory.
SMALL = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}

LOCAL_NAMES = {
    "decoder.layers.*.self_attention.linear_qkv.layer_norm_weight": "decoder.layers.*.input_layernorm.weight",
    "decoder.layers.*.mlp.linear_fc1.layer_norm_weight": "decoder.layers.*.pre_mlp_layernorm.weight",
}


def compare_with_nemo(folder: Path, say: Callable[[str], None]) -> dict[str, dict[int, Figures]]:
    """Figures of imports and exports by NeMo and by us, of the same fp32 model."""
    import torch

    from nemo_ext.models.family import FAMILIES

    source = folder / "small"
    hf_config = FAMILIES.get("qwen2").hf_config("0.5b", SMALL)
    size_bytes = write_hf_folder(source, hf_config, torch.float32)
    _write_tokenizer(source, hf_config["vocab_size"])
    found: dict[str, dict[int, Figures]] = {}
    for name, function, arguments in (
        ("NeMo's import", _nemo_import, (source, folder / "nemo", size_bytes)),
        ("NeMo's export", _nemo_export, (folder / "nemo", folder / "nemo-hf", size_bytes)),
        ("our import", _import, (source, folder / "ours", 1, size_bytes, held_bytes)),
        ("our export", _export, (folder / "ours", folder / "back", 1, size_bytes, held_bytes)),
    ):
        figures = in_process(function, *arguments)
        found[f"{name}, small model"] = {hf_config["num_hidden_layers"]: figures}
        say(f"{name}: at most {figures.peak_bytes / size_bytes:.2f} x the model held at a time, libraries included")
    for name in ("small", "nemo", "nemo-hf", "ours", "back"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return found


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Words for numbers: NeMo's importer takes a tokenizer along."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, **{f"w{number}": number for number in range(1, vocab_size)}}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>"))).save_pretrained(folder)


def _nemo_import(source: Path, target: Path, size_bytes: int) -> Figures:
    from nemo_ext import backend
    from nemo_ext.common.quiet import quiet_libraries

    with quiet_libraries():
        backend.install()
        import torch
        from nemo.collections import llm

        sizes: dict[str, Any] = {
            "num_layers": SMALL["num_hidden_layers"],
            "hidden_size": SMALL["hidden_size"],
            "ffn_hidden_size": SMALL["intermediate_size"],
            "num_attention_heads": SMALL["num_attention_heads"],
            "num_query_groups": SMALL["num_key_value_heads"],
            "params_dtype": torch.float32,
            "bf16": False,
            "transformer_layer_spec": _local_layers,
        }
        with measured(size_bytes, held_bytes) as figures:
            llm.import_ckpt(llm.Qwen2Model(llm.Qwen2Config(**sizes)), f"hf://{source}", output_path=target, overwrite=True)
    return figures()


def _nemo_export(source: Path, target: Path, size_bytes: int) -> Figures:
    from nemo_ext import backend
    from nemo_ext.common.quiet import quiet_libraries

    with quiet_libraries():
        backend.install()
        from nemo.collections.llm.gpt.model import qwen2

        apply_transforms: Any = qwen2.io.apply_transforms

        def with_local_names(source: Any, target: Any, mapping: dict[str, str], transforms: Any) -> Any:
            return apply_transforms(
                source, target, mapping={LOCAL_NAMES.get(name, name): to for name, to in mapping.items()}, transforms=transforms
            )

        qwen2.io.apply_transforms = with_local_names  # in this process, which does nothing else
        with measured(size_bytes, held_bytes) as figures:
            qwen2.HFQwen2Exporter(source).apply(target)
    return figures()


def _local_layers(config: Any) -> Any:
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

    return get_gpt_layer_local_spec(normalization=config.normalization)
