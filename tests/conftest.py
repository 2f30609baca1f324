"""Settings of all tests: property tests are bounded by their number of examples, never by the clock of a busy machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("sibol", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sibol")
