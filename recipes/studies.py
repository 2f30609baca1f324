"""Later stages of studies whose first stage is continued pretraining."""

from __future__ import annotations

from dataclasses import replace

from nemo_ext.config import RunConfig
from recipes.continue_pretraining import early_modern_72b


def early_modern_ner_72b() -> RunConfig:
    """The early modern 72B, set as model.init_from, on text with its entities marked, to recognise them in historical English."""
    # HIPE-2022 has 155,000 English training words (topres19th 124,000, ajmc 31,000): plain and marked, at about 1.5 tokens a word,
    # half a million tokens, seen three times. https://github.com/hipe-eval/HIPE-2022-data
    base = early_modern_72b()
    return replace(
        base,
        name="early_modern_ner_72b",
        output_dir="runs/early_modern_ner_72b",
        train=replace(base.train, max_steps=45, seq_length=2048, global_batch_size=16),
        optimizer=replace(base.optimizer, learning_rate=5e-6),
        schedule=replace(base.schedule, warmup_steps=5, min_learning_rate=5e-7),
        validation=replace(base.validation, every_steps=15, batches=2),
    )
