"""Qwen2: the architecture of Qwen1.5, Qwen2 and Qwen2.5."""
