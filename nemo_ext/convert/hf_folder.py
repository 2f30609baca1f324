"""The files of a Hugging Face folder besides the weights: config, generation config, tokenizer and model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.common.files import write_json

# What a folder of weights may hold that is not the tokenizer's and must not be carried over into another checkpoint.
_OWN_FILES = {"config.json", "generation_config.json", "README.md", "provenance.json", "verify.json"}
_WEIGHT_SUFFIXES = (
    *(".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".h5", ".ot", ".ckpt", ".msgpack", ".npz"),
    *(".gguf", ".tflite", ".onnx", ".onnx_data"),
)
# What must go with the weights wherever they go.
_LICENCES = ("license", "licence", "notice", "use_policy", "copying")


def model_files(start: Path | str) -> Path:
    """Where the config and the tokenizer of a start lie: in a Hugging Face folder itself, in `model/` of an imported checkpoint."""
    start = Path(start)
    return start / "model" if is_checkpoint(start) else start


def is_checkpoint(start: Path) -> bool:
    """Whether a folder is an imported checkpoint, `weights/` beside `model/`, and no Hugging Face folder."""
    return (start / "weights" / ".metadata").is_file()


def copy_licences(source: Path, folder: Path) -> list[str]:
    """Copy the files of `source` that say what may be done with the model; returns their names."""
    names = sorted(path.name for path in source.iterdir() if path.is_file() and path.name.lower().startswith(_LICENCES))
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names


def write_model_files(folder: Path, hf_config: Mapping[str, Any], torch_dtype: str, model_files_dir: Path | str | None) -> None:
    """Write config.json and generation_config.json, and copy the tokenizer's files from `model_files_dir` if given.

    torch_dtype: "float32", "bfloat16" or "float16", as config.json names it. Raises ConversionError for a config without
    `architectures`.
    """
    config = {key: value for key, value in hf_config.items() if key not in ("_name_or_path", "dtype", "torch_dtype")}
    if not config.get("architectures"):
        raise ConversionError(
            f"config.json has no `architectures` ({config.get('architectures')!r}), so no program knows which class to load. "
            'Add it, such as "architectures": ["Qwen2ForCausalLM"].'
        )
    config["torch_dtype"] = torch_dtype
    if "n_positions" in config:
        config["n_ctx"] = config["n_positions"]  # where llama.cpp looks for GPT-2's context (conversion/gpt2.py); published ones have both
    write_json(folder / "config.json", config)
    source = Path(model_files_dir) if model_files_dir is not None else None
    if source is not None and (source / "generation_config.json").is_file():
        shutil.copyfile(source / "generation_config.json", folder / "generation_config.json")
    else:
        ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
        write_json(folder / "generation_config.json", {"_from_model_config": True, **ids})
    if source is not None:
        copy_tokenizer(source, folder)


def copy_tokenizer(source: Path, folder: Path) -> list[str]:
    """Copy the files of `source` that are neither weights nor written by us, and no folders, which hold weights in other formats.

    Returns the names.

    Raises ConversionError if there is no such folder.
    """
    if not source.is_dir():
        raise ConversionError(f"{source} is not a folder. Give the folder with config.json and the tokenizer's files (RUN/model).")
    copied = []
    for path in sorted(source.iterdir()):
        if path.is_dir() or path.name in _OWN_FILES or path.name.startswith(".") or path.name.endswith(_WEIGHT_SUFFIXES):
            continue
        shutil.copyfile(path, folder / path.name)
        copied.append(path.name)
    return copied


def model_card(hf_config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """A short README.md that claims nothing but what provenance.json holds."""
    source, weights, run = provenance["source"], provenance["weights"], provenance.get("run") or {}
    dataset = provenance.get("dataset") or {}
    facts = {
        "architecture": f"{hf_config.get('model_type')}, {weights['parameters']:,} parameters, {weights['dtype']}",
        "trained steps": source.get("step"),
        "run": run.get("name"),
        "started from": run.get("init_from") or "random weights" if run else None,
        "training data": dataset.get("path"),
        "fingerprint of the data": dataset.get("fingerprint"),
        "fingerprint of the weights": weights["fingerprint"],
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value is not None]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "---",
            "# " + str(run.get("name") or "Exported model"),
            "",
            "Exported by Sibol from a Megatron checkpoint. The model has not been reviewed for quality, bias or safety.",
            "",
            *lines,
            "",
            "`provenance.json` has the sources and versions; `verify.json`, if there, the comparison with the training model.",
            "",
        ]
    )
