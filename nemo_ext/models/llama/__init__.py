"""Llama: a small modern decoder for studies from scratch."""
