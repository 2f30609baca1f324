"""Small encoders that learn masked tokens of lines of text: data and settings for tests."""

from __future__ import annotations

import json
from pathlib import Path

from data_tools.prepare import PrepareOptions, prepare
from data_tools.python_docs import write_python_docs
from nemo_ext.config import RunConfig, apply_overrides
from tests.support.encoder_tokenizers import bert_tokenizer, modernbert_tokenizer

MODELS = {
    "bert": "{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4}",
    "modernbert": "{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 4, num_attention_heads: 4, local_attention: 16}",
}
TOKENIZERS = {"bert": bert_tokenizer, "modernbert": modernbert_tokenizer}
PACKED = ("data.packing=true", "data.piece_tokens=32", "train.seq_length=96")


def prepare_lines(folder: Path) -> dict[str, Path]:
    """A dataset per family: lines of eight documentation topics."""
    write_python_docs(folder / "topics.jsonl")
    topics = [json.loads(line)["text"] for line in (folder / "topics.jsonl").read_text().splitlines()][:8]
    lines = [line for topic in topics for line in topic.splitlines() if line.strip()]
    (folder / "lines.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    for family, tokenizer in TOKENIZERS.items():
        tokenizer(folder / f"{family}-tokenizer")
        inputs = (str(folder / "lines.jsonl"),)
        prepare(PrepareOptions(inputs=inputs, tokenizer=folder / f"{family}-tokenizer", out=folder / family, split="90,10,0", workers=1))
    return {family: folder / family for family in TOKENIZERS}


def masked_run(folder: Path, dataset: Path, *overrides: str, family: str = "modernbert") -> RunConfig:
    """A 10-step run of a small encoder with a batch of 8 pieces of at most 32 tokens."""
    base = [
        "data.task=mlm",
        f"model.family={family}",
        f"model.overrides={MODELS[family]}",
        f"output_dir={folder}",
        f"data.path={dataset}",
        "train.max_steps=10",
        "train.seq_length=32",
        "train.global_batch_size=8",
        "optimizer.learning_rate=2e-3",
        "schedule.warmup_steps=4",
        "logging.progress=false",
        "logging.tensorboard=false",
        "validation.batches=2",
    ]
    return apply_overrides(RunConfig(), [*base, *overrides])
