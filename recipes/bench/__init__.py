"""Benchmarks behind the figures in docs/benchmarks.md: ratios between contenders that ran side by side in one call."""
