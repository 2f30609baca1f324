"""Training of BPE tokenizers of three kinds, written as Hugging Face folders that AutoTokenizer opens offline.

"qwen2" and "gpt2" are byte-level and cut text before merging as those models do; "gemma" writes U+2581 for a space, has <0xNN> for
the bytes of characters that it does not know, and merges over whole texts. None normalises Unicode: decoding gives back the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from nemo_ext.common.errors import ConfigError, DataError, OutputExistsError
from nemo_ext.common.files import atomic_folder, refuse_existing, write_json
from nemo_ext.tokenizers.folder import TOKENIZER_FILES
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer, load
from nemo_ext.tokenizers.token_bytes import METASPACE

END_OF_TEXT = "<|endoftext|>"
KINDS = ("qwen2", "gpt2", "gemma")
BYTES = 256
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(BYTES))
SMALLEST_VOCABULARY = BYTES + 1
NO_LENGTH_LIMIT = int(1e30)  # transformers' own value for a tokenizer that sets no limit (VERY_LARGE_INTEGER)

# transformers 4.57, models/qwen2/tokenization_qwen2.py, PRETOKENIZE_REGEX
QWEN2_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train(
    texts: Iterable[str], vocab_size: int, out_dir: Path | str, *, kind: str = "qwen2", min_frequency: int = 2, overwrite: bool = False
) -> TextTokenizer:
    """Train BPE on `texts` and write a tokenizer folder with exactly `vocab_size` ids; the same texts give the same files.

    `kind` is one of KINDS. The vocabulary counts `<|endoftext|>` (id 0) and the 256 bytes; a pair is merged when it occurs at least
    `min_frequency` times. Raises ConfigError for an unknown kind or a vocabulary below 257, DataError when the text cannot fill it,
    OutputExistsError when `out_dir` is taken.
    """
    if kind not in KINDS:
        raise ConfigError(f"Tokenizer kind {kind!r} is not known. Choose one of: {', '.join(KINDS)}.")
    if vocab_size < SMALLEST_VOCABULARY:
        raise ConfigError(f"vocab_size={vocab_size} is too small: {END_OF_TEXT} and the 256 bytes alone need {SMALLEST_VOCABULARY}.")
    _refuse_out(Path(out_dir), overwrite)  # before the work, not after it
    tokenizer = _gemma() if kind == "gemma" else _byte_level(kind)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[END_OF_TEXT, *(BYTE_TOKENS if kind == "gemma" else ())],
        initial_alphabet=[] if kind == "gemma" else sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size()
    if found != vocab_size:
        raise DataError(
            f"The text supports only {found} tokens, {vocab_size} were asked for: no further pair occurs {min_frequency} times. "
            f"Train on more text, or ask for --vocab-size {found} or less."
        )
    _write_folder(_for_use(tokenizer, kind), Path(out_dir), overwrite)
    return load(out_dir)


def _refuse_out(out_dir: Path, overwrite: bool) -> None:
    """Only a folder with nothing but a tokenizer is ever replaced: --overwrite must not remove the weights of a model."""
    refuse_existing(out_dir, overwrite)
    others = [path.name for path in out_dir.iterdir() if path.name not in TOKENIZER_FILES] if out_dir.is_dir() else []
    if others:
        raise OutputExistsError(
            f"{out_dir} holds more than a tokenizer ({', '.join(sorted(others)[:4])}), so --overwrite does not replace it. "
            "Choose another place."
        )


def _byte_level(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")  # the built-in pattern is GPT-2's
    split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False)
    tokenizer.pre_tokenizer = byte_level if kind == "gpt2" else pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _gemma() -> Tokenizer:
    """The parts of Gemma's tokenizer.json; while training, no pair is merged over a space, as SentencePiece does not."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", METASPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(METASPACE, behavior="merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(METASPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _for_use(tokenizer: Tokenizer, kind: str) -> str:
    """The tokenizer.json. Gemma has bytes as ordinary tokens, and none of the cuts that its training made."""
    parsed = json.loads(tokenizer.to_str())
    if kind == "gemma":
        parsed["pre_tokenizer"] = None
        parsed["added_tokens"] = [token for token in parsed["added_tokens"] if token["content"] == END_OF_TEXT]
    return json.dumps(parsed, ensure_ascii=False, indent=2)


def _write_folder(tokenizer_json: str, out_dir: Path, overwrite: bool) -> None:
    end = {"content": END_OF_TEXT, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "added_tokens_decoder": {"0": end},
        "clean_up_tokenization_spaces": False,  # it would change the decoded text
        "eos_token": END_OF_TEXT,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": NO_LENGTH_LIMIT,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    with atomic_folder(out_dir, overwrite) as folder:
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        write_json(folder / "tokenizer_config.json", settings)
        write_json(folder / "special_tokens_map.json", {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT})
