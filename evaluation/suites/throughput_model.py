"""Any transformers model as something that can be timed: the class that its config names, and its tokenizer."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch

from evaluation.loading import ModelFolder, choose_device, load_pretrained
from nemo_ext.common.errors import ConfigError, DataError

DOCKET_TOKENS = 768  # the docket study cuts texts here


class TimedModel:
    """A model in fp32 on its device, and how its texts are cut. `network` is what is timed: the body, or all with its head."""

    def __init__(self, folder: ModelFolder, device: str, head: bool, max_tokens: int | None, attention: str = "auto") -> None:
        self.device = torch.device(choose_device(device))
        self.head = head
        self._folder, self._attention = folder, attention
        self._model, self.tokenizer = self._load(self.device)
        longest = _longest(self._model.config, self.tokenizer)
        self.max_tokens = max_tokens or min(DOCKET_TOKENS, longest)
        if self.max_tokens > longest:
            raise ConfigError(f"--set max_tokens={max_tokens} does not fit the model in {folder.path}: it takes {longest} tokens.")

    def _load(self, device: torch.device) -> tuple[Any, Any]:
        """The model on `device`; by itself with the study's attention: eager on a CPU, on a GPU what transformers chooses."""
        auto = "eager" if device.type == "cpu" else None
        wanted = auto if self._attention == "auto" else self._attention
        try:
            model, tokenizer = load_pretrained(self._folder, _architecture(self._folder), device, attn_implementation=wanted)
        except ImportError as error:
            raise ConfigError(f"--set attention={wanted} needs a package that is not installed here: {error}") from None
        if hasattr(model.config, "use_cache"):
            model.config.use_cache = False  # a text is read once; nothing follows that a cache would serve
        if tokenizer.pad_token_id is None:  # padding is masked: any token will do
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
        return model, tokenizer

    @property
    def network(self) -> Any:
        """The module that is called."""
        return self._model if self.head else self._model.base_model

    @property
    def attention(self) -> str:
        """How attention is computed where the model is."""
        return str(self._model.config._attn_implementation)

    def move(self, device: torch.device) -> None:
        """Load the model again on another device: most models choose their attention when they are built."""
        del self._model  # the memory of one at a time
        self._model, _ = self._load(device)

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids with the tokenizer's special tokens, cut to `max_tokens`; and how many texts were cut."""
        whole = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        cut = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        if not all(cut):
            raise DataError("A text has no tokens at all. Leave it out.")
        return cut, sum(len(one) > len(other) for one, other in zip(whole, cut, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """What was timed, and on what."""
        # torch.cuda: names the machine in results.json; evaluation has no backend to ask
        accelerator = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        return {
            "parameters": self._model.num_parameters(),
            "body_parameters": self._model.base_model.num_parameters(),
            "timed": "model with its head" if self.head else "body without its head",
            "max_tokens": self.max_tokens,
            "hardware": {"accelerator": accelerator, "cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        }


def _architecture(folder: ModelFolder) -> str:
    """The class that the config names, so that nothing is timed that is made up, as poolers are by AutoModel."""
    import transformers

    name = str((folder.config.get("architectures") or [None])[0])
    kind: Any = getattr(transformers, name, None)
    known = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not known or folder.config.get("is_encoder_decoder"):
        raise ConfigError(
            f"The architecture {name!r} in {folder.path / 'config.json'} cannot be timed: expected a model of transformers "
            "with an encoder or a decoder alone, as `sibol export` writes it."
        )
    return name


def _longest(config: Any, tokenizer: Any) -> int:
    """Tokens that the model takes: the tokenizer knows of positions that are spent on padding (RoBERTa)."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(min(positions or tokenizer.model_max_length, tokenizer.model_max_length))
