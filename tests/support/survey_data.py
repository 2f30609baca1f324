"""Survey records as the SocSci210 data set has them, and a model whose vocabulary is answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

QUESTION = "You read about a case and then were asked: \u201cHow fair is it?\u201d Only return an integer from {} to {}, nothing else."


def record(study: str, condition: int, task: int, response: int, number: int, scale: tuple[int, int] = (1, 5)) -> dict[str, Any]:
    """One answer of a person."""
    stimuli = QUESTION.format(*scale)
    return {
        "sample_id": number,
        "participant": number,
        "study_id": study,
        "condition_num": condition,
        "task_num": task,
        "stimuli": stimuli,
        "prompt": f"Age: {20 + number % 50}. {stimuli}",
        "response": response,
    }


def records(studies: Sequence[str], people: int = 6, scale: tuple[int, int] = (1, 5), seed: int = 0) -> list[dict[str, Any]]:
    """People who answer two tasks under two conditions in each study; the condition moves them."""
    generator = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for study in studies:
        for condition in (0, 1):
            for task in (0, 1):
                answers = np.clip(generator.normal(2.5 + condition, 1, people).round(), *scale).astype(int)
                found += [record(study, condition, task, int(value), len(found) + place, scale) for place, value in enumerate(answers)]
    return found


def write_records(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """As JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def save_answering_model(folder: Path, seed: int = 0) -> Path:
    """A random model of 1 to 6, as many ends and a word: most of what it writes is a number from 1 to 6, or several."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    ends = [f"<end{number}>" for number in range(6)]
    words = ["<unk>", "word", "<turn>", *map(str, range(1, 7)), *ends]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = ["<turn>", *ends[1:]]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token=ends[0], additional_special_tokens=special)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} <turn> {% endfor %}"
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=96,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = fast.convert_tokens_to_ids(ends)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
