"""Text that a causal model writes after a prompt: greedy or sampled, stopped by the end-of-text token or by a string.

Prompts of similar length share a batch, padded on the left, with positions that do not count the padding. The draws of a sample
come from a generator keyed by (seed, prompt id, sample number), so they do not depend on what else is in the batch. Nothing else
shapes the distribution: penalties and other settings of a folder's generation_config.json are not applied, its end tokens are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from evaluation.forward import Advance, Network, padded
from evaluation.statistics import FloatArray
from evaluation.windows import IntArray, plan_batches
from nemo_ext.common.errors import ConfigError, DataError

CACHE_BYTES = {"cpu": 256 << 20, "cuda": 8 << 30}  # fp32 keys and values of one batch
FEW_LAYERS = 8  # below, what a layer computes on the way takes more memory than keys and values, and is counted as if it were these
DRAWING_FACTOR = 4  # drawing sorts each row of logits in fp64, with their numbers
BOUNDARY_TOKENS = 4  # decoded beyond the bytes of a stop string, as tokens may hold parts of characters


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue. `chat`: one turn of a user, after `system`, in the tokenizer's chat template. `id` keys the draws."""

    id: str
    text: str
    system: str | None = None
    chat: bool = False


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: temperature 0 takes the likeliest; otherwise draws from the smallest set that holds `top_p`.

    The text ends before the first of the strings in `stop`. Raises ConfigError for values that mean nothing.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 1234

    def __post_init__(self) -> None:
        wrong = {
            "max_new_tokens, which must be at least 1": self.max_new_tokens < 1,
            "temperature, which must be a number of at least 0": not 0 <= self.temperature < float("inf"),
            "top_p, which must lie above 0 and be at most 1": not 0 < self.top_p <= 1,
            "samples, which must be at least 1": self.samples < 1,
            "samples: at temperature 0 all of them are the same; choose 1 or a temperature above 0": self.samples > 1
            and self.temperature == 0,
            "stop: the empty string would end every text at once": "" in self.stop,
        }
        for what, holds in wrong.items():
            if holds:
                raise ConfigError(f"Sampling cannot have this {what}. Found {self}.")


@dataclass(frozen=True)
class Generated:
    """Text without the end token and the stop string; `tokens` drawn, the end token among them; `finished`: not cut at the limit."""

    text: str
    tokens: int
    finished: bool


@dataclass
class _Batch:
    """Prompts of one batch, and per sample (prompt after prompt) the tokens written so far."""

    names: list[str]
    prompts: list[IntArray]
    uniforms: FloatArray  # [prompts * samples, max_new_tokens]
    written: list[list[int]] = field(default_factory=list)


class TextGenerator:
    """Writes text with a network and its tokenizer. `encode` gives the ids of plain prompts, `max_rows` bounds a batch."""

    def __init__(
        self, network: Network, tokenizer: Any, context: int, max_rows: int, encode: Callable[[Sequence[str]], list[IntArray]]
    ) -> None:
        self._network, self._tokenizer, self._context, self._max_rows, self._encode = network, tokenizer, context, max_rows, encode
        config = network.model.config.get_text_config()
        kind = "cpu" if network.device.type == "cpu" else "cuda"
        # As if each head had keys of its own: an upper bound where heads share them.
        self._max_positions = CACHE_BYTES[kind] // (8 * max(config.num_hidden_layers, FEW_LAYERS) * config.hidden_size)
        self._ends = _end_tokens(network.model, tokenizer)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance) -> list[list[Generated]]:
        """The samples of each prompt; `advance` is told the UTF-8 bytes of the prompts that are done.

        Raises DataError naming a prompt that does not fit the context, has no chat template, or gets logits that are not numbers.
        """
        encoded = self.encode_prompts(prompts)
        for prompt, ids in zip(prompts, encoded, strict=True):
            if not len(ids) or len(ids) + sampling.max_new_tokens > self._context:
                raise DataError(
                    f"Prompt {prompt.id!r} has {len(ids)} tokens and {sampling.max_new_tokens} are to be written; expected at least 1 and "
                    f"no more than {self._context} in all (the context). Shorten the prompt, write fewer tokens or raise --context."
                )
        results: list[list[Generated]] = [[] for _ in prompts]
        lengths = np.array([len(ids) + sampling.max_new_tokens for ids in encoded], dtype=np.int64)
        max_rows = max(1, min(self._max_rows, self._network.max_positions // DRAWING_FACTOR) // sampling.samples)
        for numbers in plan_batches(lengths, max_rows, max(1, self._max_positions // sampling.samples)):
            chosen = [prompts[number] for number in numbers]
            uniforms = np.concatenate([draws(prompt.id, sampling) for prompt in chosen])
            batch = _Batch([prompt.id for prompt in chosen], [encoded[number] for number in numbers], uniforms)
            self._write(batch, sampling)
            texts = [self._finish(tokens, sampling) for tokens in batch.written]
            for place, number in enumerate(numbers):
                results[number] = texts[place * sampling.samples : (place + 1) * sampling.samples]
                advance(float(len(prompts[number].text.encode())))
        return results

    def encode_prompts(self, prompts: Sequence[Prompt]) -> list[IntArray]:
        """Token ids of each prompt, after which the model writes."""
        plain = iter(self._encode([prompt.text for prompt in prompts if not prompt.chat]))
        for prompt in prompts:
            if prompt.system is not None and not prompt.chat:
                raise ConfigError(f"Prompt {prompt.id!r} has a system prompt but is no chat. Put it into the text, or ask for a chat.")
        return [self._encode_chat(prompt) if prompt.chat else next(plain) for prompt in prompts]

    def _encode_chat(self, prompt: Prompt) -> IntArray:
        from jinja2 import TemplateError

        if not self._tokenizer.chat_template:
            raise DataError(
                f"The tokenizer in {self._tokenizer.name_or_path} has no chat template, which prompt {prompt.id!r} is to be put into. "
                "Ask for plain prompts, or choose a model that was trained on chats."
            )
        system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        messages = [*system, {"role": "user", "content": prompt.text}]
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise DataError(
                f"The chat template of {self._tokenizer.name_or_path} refuses prompt {prompt.id!r}: {error}. "
                + ("Some templates know no system prompt: leave it out." if system else "Ask for plain prompts.")
            ) from None
        # The template spells out special tokens, BOS among them, so they are read as such and none is added.
        return np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)

    @torch.inference_mode()
    def _write(self, batch: _Batch, sampling: Sampling) -> None:
        """Write all samples of a batch token by token; those that have ended leave it, with their keys and values."""
        samples = sampling.samples
        batch.written = [[] for _ in range(len(batch.prompts) * samples)]
        inputs, mask = (tensor.to(self._network.device) for tensor in padded(batch.prompts, left=True))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        output = self._network.forward(inputs, mask, use_cache=True, position_ids=positions, logits_to_keep=1)
        cache, logits = output.past_key_values, output.logits[:, -1]
        if samples > 1:  # the samples of a prompt share its forward pass
            cache.batch_repeat_interleave(samples)
            logits, mask = logits.repeat_interleave(samples, 0), mask.repeat_interleave(samples, 0)
        live = np.arange(len(batch.written))
        for step in range(sampling.max_new_tokens):
            self._check(logits, live, batch, samples)
            tokens = choose(logits.float(), torch.from_numpy(batch.uniforms[live, step]).to(logits.device), sampling)
            for row, token in zip(live.tolist(), tokens.tolist(), strict=True):
                batch.written[row].append(token)
            going = np.array([not self._ended(batch.written[row], sampling) for row in live])
            if step + 1 == sampling.max_new_tokens or not going.any():
                return
            if not going.all():
                kept = torch.from_numpy(np.flatnonzero(going)).to(logits.device)
                cache.batch_select_indices(kept)
                live, tokens, mask = live[going], tokens[kept], mask[kept]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            last = mask.sum(-1, keepdim=True) - 1
            logits = self._network.forward(
                tokens[:, None], mask, use_cache=True, past_key_values=cache, position_ids=last, logits_to_keep=1
            ).logits[:, -1]

    @staticmethod
    def _check(logits: torch.Tensor, live: IntArray, batch: _Batch, samples: int) -> None:
        broken = (~logits.amax(-1).isfinite()).nonzero()[:, 0].tolist()
        if broken:
            row = int(live[broken[0]])
            raise DataError(
                f"The model gives prompt {batch.names[row // samples]!r} logits that are NaN or infinite after {len(batch.written[row])} "
                "tokens, but they must be finite. The weights may hold NaN or infinity: check the training run that wrote them."
            )

    def _ended(self, tokens: list[int], sampling: Sampling) -> bool:
        if tokens[-1] in self._ends:
            return True
        if not sampling.stop:
            return False
        tail = max(len(text.encode()) for text in sampling.stop) + BOUNDARY_TOKENS  # a token has at least a byte
        return _first_stop(self._decode(tokens[-tail:]), sampling.stop) is not None

    def _finish(self, tokens: list[int], sampling: Sampling) -> Generated:
        ended = tokens[-1] in self._ends
        text = self._decode(tokens[:-1] if ended else tokens)
        stop = _first_stop(text, sampling.stop)
        return Generated(text[:stop], len(tokens), ended or stop is not None)

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _first_stop(text: str, stop: Sequence[str]) -> int | None:
    return min((place for place in map(text.find, stop) if place >= 0), default=None)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """What ends a text: the tokens of the folder's generation config, and the tokenizer's EOS."""
    settings = getattr(model, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    listed = found if isinstance(found, (list, tuple)) else [found]
    return frozenset(int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None)


def draws(identity: str, sampling: Sampling) -> FloatArray:
    """Uniform numbers `[samples, max_new_tokens]` keyed by (seed, prompt id, sample number); a longer text begins with the same ones."""
    rows = []
    for sample in range(sampling.samples):
        key = hashlib.sha256(f"{sampling.seed}\n{sample}\n{identity}".encode()).digest()
        rows.append(np.random.default_rng(int.from_bytes(key)).random(sampling.max_new_tokens))
    return np.stack(rows)


def choose(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The next token of each row `[rows]`: the likeliest, or the one at `uniforms` `[rows]` of the nucleus (Holtzman et al. 2020)."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    ordered, tokens = (logits.double() / sampling.temperature).softmax(-1).sort(descending=True, stable=True)
    reached = ordered.cumsum(-1)
    kept = ((reached - ordered) < sampling.top_p).sum(-1, keepdim=True)  # the first token is always kept
    mass = reached.gather(1, kept - 1)
    place = (reached <= uniforms[:, None] * mass).sum(-1, keepdim=True)
    return tokens.gather(1, place.minimum(kept - 1))[:, 0]
