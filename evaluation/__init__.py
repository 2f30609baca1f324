"""Hugging Face folder in, results.json out: suites, statistics, reports. Knows nothing of Megatron or NeMo."""
