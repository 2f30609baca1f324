"""Masked language modelling on real ranks: losses that layouts, packing, loader processes, kills and exports do not change."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_tools.prepare import PrepareOptions, prepare
from data_tools.python_docs import write_python_docs
from nemo_ext.config import RunConfig, apply_overrides
from tests.support.encoder_tokenizers import bert_tokenizer, modernbert_tokenizer
from tests.support.training import losses, train_on_ranks

MODELS = {
    "bert": "{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4}",
    "modernbert": "{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 4, num_attention_heads: 4, local_attention: 16}",
}
TOKENIZERS = {"bert": bert_tokenizer, "modernbert": modernbert_tokenizer}
PACKED = ["data.packing=true", "data.piece_tokens=32", "train.seq_length=96"]


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Lines of Python's documentation topics, so that lengths are mixed, with the tokenizer of each family."""
    folder = tmp_path_factory.mktemp("masked")
    write_python_docs(folder / "topics.jsonl")
    import json

    topics = [json.loads(line)["text"] for line in (folder / "topics.jsonl").read_text().splitlines()][:8]
    lines = [line for topic in topics for line in topic.splitlines() if line.strip()]
    (folder / "lines.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    for family, tokenizer in TOKENIZERS.items():
        tokenizer(folder / f"{family}-tokenizer")
        options = {"inputs": (str(folder / "lines.jsonl"),), "tokenizer": folder / f"{family}-tokenizer", "workers": 1}
        prepare(PrepareOptions(out=folder / family, split="90,10,0", **options))
    return {family: folder / family for family in TOKENIZERS}


def masked_run(folder: Path, datasets: dict[str, Path], *overrides: str, family: str = "modernbert") -> RunConfig:
    """A 10-step run of a small encoder with a batch of 8 pieces of at most 32 tokens."""
    base = [
        "data.task=mlm",
        f"model.family={family}",
        f"model.overrides={MODELS[family]}",
        f"output_dir={folder}",
        f"data.path={datasets[family]}",
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


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("packing", [[], PACKED], ids=["padded", "packed"])
def test_layouts_have_the_losses_of_one_rank(family: str, packing: list[str], datasets: dict[str, Path], tmp_path: Path) -> None:
    expected = train_on_ranks(1, masked_run(tmp_path / "one", datasets, *packing, family=family))
    assert losses(expected)[-1] < losses(expected)[0] - 0.3
    batch = [] if packing else ["train.micro_batch_size=2"]
    for name, layout in {"dp2": batch, "tp2": ["parallel.tp=2", "parallel.sequence_parallel=true"], "pp2": ["parallel.pp=2"]}.items():
        found = train_on_ranks(2, masked_run(tmp_path / name, datasets, *packing, *layout, family=family))
        assert losses(found) == pytest.approx(losses(expected), abs=1e-5, rel=0), name
        assert validation(found) == pytest.approx(validation(expected), abs=1e-5, rel=0), name
        assert tokens(found) == tokens(expected), name


def validation(lines: list[dict[str, float]]) -> list[float]:
    """Validation losses in order of steps."""
    return [line["validation_loss"] for line in lines if "validation_loss" in line]


def tokens(lines: list[dict[str, float]]) -> list[float]:
    """Tokens consumed, in order of steps."""
    return [line["consumed_tokens"] for line in lines if "loss" in line]
