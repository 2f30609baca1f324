"""Opens a Hugging Face folder for scoring: checked for completeness, offline, fp32, and proven to be causal.

Every weight must come from the folder: transformers initialises what it does not find, and the scores of such a model
look plausible. What is done with the model is the business of `evaluation.models`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import ConfigError, ConversionError, DataError
from nemo_ext.common.files import read_json, sha256_of_file, sha256_of_json

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "chat_template.jinja")
WEIGHTS_INDEX = "model.safetensors.index.json"
PROVENANCE_NAME = "provenance.json"
EXPORT_AGAIN = "Expected a complete Hugging Face folder, as `sibol export` writes it: export the model again or check the path."
# Longer windows cost quadratic attention and a vocabulary-wide row of logits per token; --context raises it.
LARGEST_DEFAULT_CONTEXT = 2048
PROBE_TOKENS = 8


@dataclass(frozen=True)
class ModelFolder:
    """A folder that holds a model, before anything heavy is loaded."""

    path: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    def as_dict(self) -> dict[str, Any]:
        """Path and fingerprints for results.json: SHA-256 over the weight files, the config and the tokenizer files."""
        tokenizer = [self.path / name for name in (*TOKENIZER_FILES, *TOKENIZER_SETTINGS)]
        return {
            "path": str(self.path.absolute()),
            "architecture": (self.config.get("architectures") or [self.config.get("model_type")])[0],
            "weights_sha256": _sha256_of_files(self.weights),
            "config_sha256": sha256_of_json(self.config),
            "tokenizer_sha256": _sha256_of_files([file for file in tokenizer if file.is_file()]),
            "provenance": self._provenance(),
        }

    def _provenance(self) -> dict[str, Any] | None:
        """Which run and step the weights come from, where the export says so."""
        if not (self.path / PROVENANCE_NAME).is_file():
            return None
        known = read_json(self.path / PROVENANCE_NAME, "provenance")
        run, source, weights = (known.get(part) or {} for part in ("run", "source", "weights"))
        return {"run": run.get("name"), "step": source.get("step"), "weights_fingerprint": weights.get("fingerprint")}


def open_folder(path: Path | str) -> ModelFolder:
    """Check that `path` is a folder with config.json, a tokenizer and all its .safetensors weights. Raises DataError."""
    path = Path(path)
    if not path.is_dir():
        found = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"Model folder {path} {found}. {EXPORT_AGAIN} Models are never downloaded.")
    config = read_json(path / "config.json", "model config")
    if not isinstance(config, dict):
        raise DataError(f"{path / 'config.json'} holds {type(config).__name__}, not an object. {EXPORT_AGAIN}")
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise DataError(f"{path} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is there. {EXPORT_AGAIN}")
    return ModelFolder(path, config, _weight_files(path))


def _weight_files(path: Path) -> tuple[Path, ...]:
    if (path / WEIGHTS_INDEX).is_file():
        try:
            names = sorted(set(read_json(path / WEIGHTS_INDEX, "weights index")["weight_map"].values()))
        except (KeyError, TypeError, AttributeError):
            raise DataError(f"{path / WEIGHTS_INDEX} has no weight_map. {EXPORT_AGAIN}") from None
    else:
        names = sorted(file.name for file in path.glob("*.safetensors"))
        if not names:
            raise DataError(f"{path} has no weights: no .safetensors file is there. {EXPORT_AGAIN}")
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise DataError(f"{path} lacks {len(missing)} of its {len(names)} weight files: {', '.join(missing[:5])}. {EXPORT_AGAIN}")
    return tuple(path / name for name in names)


def _sha256_of_files(files: Any) -> str:
    return sha256_of_json({file.name: sha256_of_file(file) for file in files})


def load_model(folder: ModelFolder, device: str = "auto", context: int | None = None, batch_size: int | None = None) -> Any:
    """Load a folder as `evaluation.models.HuggingFaceModel` in fp32 on `device` ("auto", "cpu", "cuda", "cuda:1").

    `context` in tokens: default the model's own, at most LARGEST_DEFAULT_CONTEXT. Raises DataError, ConfigError or
    ConversionError for weights that are missing or do not fit, a model that is not causal, a context it cannot take.
    """
    import torch

    from evaluation.models import HuggingFaceModel

    place = torch.device(choose_device(device))
    context = choose_context(folder, context)
    model, tokenizer = load_pretrained(folder, "AutoModelForCausalLM", place)
    check_causal(model, folder.path)
    return HuggingFaceModel(model, tokenizer, context, batch_size)


def choose_device(device: str) -> str:
    """ "cpu" or a CUDA device for "auto" or a name. Raises ConfigError for what is not there."""
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", device):
        raise ConfigError(f"Unknown device {device!r}. Expected auto, cpu, cuda or cuda:NUMBER.")
    # torch.cuda: scoring runs plain transformers, without the backend that trains.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise ConfigError(f"--device {device}: PyTorch finds {count or 'no'} CUDA devices here. Choose --device cpu or auto.")
    return ("cuda" if count else "cpu") if device == "auto" else device


def load_pretrained(folder: ModelFolder, kind: str, device: Any, unread: Sequence[str] = (), **options: Any) -> tuple[Any, Any]:
    """The model in fp32 on `device`, in evaluation mode, and its tokenizer; `kind` names a class of transformers, most often an Auto class.

    unread: parts of the names of tensors that may be left unused. options: more arguments of `from_pretrained`.
    Raises DataError for what cannot be read, ConversionError when weights are missing or left over.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
        loaded: Any = getattr(transformers, kind).from_pretrained(
            folder.path, local_files_only=True, dtype=torch.float32, output_loading_info=True, use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder.path} cannot be loaded by transformers: {error}. {EXPORT_AGAIN}") from error
    model, report = loaded
    left = {name for name in report["unexpected_keys"] if not any(part in name for part in unread)}
    for found, consequence in ((report["missing_keys"], "would start from random values"), (left, "would be left unused")):
        names = sorted(found)
        if names:
            raise ConversionError(
                f"The weights in {folder.path} do not fit its config: {len(names)} tensors {consequence} ({', '.join(names[:5])}"
                f"{', ...' if len(names) > 5 else ''}). Export the model again."
            )
    return model.to(device).eval(), tokenizer


def check_causal(model: Any, path: Path) -> None:
    """Change the last token and see that no earlier prediction moves; a masked language model would score its own answers."""
    import torch

    ids = torch.arange(1, PROBE_TOKENS + 1, device=model.device)[None] % model.get_output_embeddings().weight.shape[0]
    changed = ids.clone()
    changed[0, -1] = 0
    with torch.inference_mode():
        before, after = (model(input_ids=value, use_cache=False).logits[0, :-1].float() for value in (ids, changed))
    # NaN compares as not greater; scoring reports it together with the document.
    if (before - after).abs().max() > 1e-4 * before.abs().max():
        raise ConfigError(
            f"The model in {path} is not causal: its predictions depend on later tokens, so a likelihood of text is not defined. "
            "Expected a model with a causal language-model head (architectures: ...ForCausalLM)."
        )


def choose_context(folder: ModelFolder, context: int | None) -> int:
    """`context`, or the default, in tokens. Raises ConfigError where the model cannot take it; loads no weights."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder.path, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder.path / 'config.json'} cannot be read by transformers: {error}. {EXPORT_AGAIN}") from error
    limit = getattr(config, "max_position_embeddings", None)
    if context is not None and (context < 1 or (limit is not None and context > limit)):
        raise ConfigError(
            f"--context {context} does not fit the model in {folder.path}: expected 1 to {limit} tokens (max_position_embeddings)."
        )
    return context or min(limit or LARGEST_DEFAULT_CONTEXT, LARGEST_DEFAULT_CONTEXT)
