"""A Hugging Face tokenizer folder as files: what belongs to it, its special tokens, its fingerprint, a copy of it.

Only JSON is read here; encoding is in `text_tokenizer`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import DataError
from nemo_ext.common.files import read_json, sha256_of_json

# A tokenizer often lies among a model's weights, so the files that travel are named rather than copied wholesale.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model")
SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def sentencepiece_model(path: Path) -> Path | None:
    """The sentencepiece model that `path` stands for: a .model file itself, or that of a folder without tokenizer.json; else None."""
    if path.suffix == ".model" and path.is_file():
        return path
    if (path / "tokenizer.json").is_file():
        return None
    return next((path / name for name in SENTENCEPIECE_FILES if (path / name).is_file()), None)


def read_tokenizer_json(folder: Path) -> dict[str, Any]:
    """The parsed `tokenizer.json` of a folder. Raises DataError when there is none or it is damaged."""
    if not folder.is_dir():
        raise DataError(f"Tokenizer folder not found: {folder}. Expected a Hugging Face tokenizer folder; check the path.")
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise DataError(
            f"{folder} has no tokenizer.json, which holds a fast Hugging Face tokenizer. If it holds another tokenizer format, convert it "
            "with transformers: AutoTokenizer.from_pretrained(folder).save_pretrained(new_folder). To make one: `sibol tokenizer train`."
        )
    parsed = read_json(file, "tokenizer")
    model = parsed.get("model") if isinstance(parsed, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise DataError(f"{file} is not a tokenizer: expected an object with a 'model' that has a 'vocab'. Restore an intact copy.")
    return parsed


def special_tokens(folder: Path) -> dict[str, str]:
    """Role to token text (`{"eos_token": "<|endoftext|>"}`), from tokenizer_config.json, else from special_tokens_map.json."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        entries = read_json(folder / name, "tokenizer settings")
        for role in SPECIAL_ROLES:
            value = entries.get(role)
            text = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(text, str):
                found[role] = text
    return found


def fingerprint(folder: Path | str) -> str:
    """Hex SHA-256 of how a tokenizer cuts text: its tokenizer.json and special tokens, in canonical form.

    Truncation and padding are left out, because they belong to a use and not to the tokenizer; so is the way merges are spelled
    ("a b" in older files, ["a", "b"] in newer ones). Equal tokenizers have equal fingerprints wherever they lie.
    """
    folder = Path(folder)
    parsed = read_tokenizer_json(folder)
    kept = {key: value for key, value in parsed.items() if key not in ("truncation", "padding", "version")}
    model = dict(kept["model"])
    if isinstance(model.get("merges"), list):
        model["merges"] = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    return sha256_of_json({"tokenizer": {**kept, "model": model}, "special_tokens": special_tokens(folder)})


def copy_tokenizer(source: Path | str, target: Path | str) -> list[str]:
    """Copy every tokenizer file of `source` into the folder `target` (made when missing); returns their names."""
    source, target = Path(source), Path(target)
    read_tokenizer_json(source)
    target.mkdir(parents=True, exist_ok=True)
    names = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, target / name)
    return names
