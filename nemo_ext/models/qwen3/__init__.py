"""Qwen3: the dense models of that name."""
