"""Settings of all tests: no network, and property tests bounded by their number of examples, never by the clock of a busy machine."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Before anything reads them, and inherited by every process that a test starts: what is not on this machine is not fetched.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1")
os.environ.pop("WANDB_API_KEY", None)

settings.register_profile("sibol", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sibol")
