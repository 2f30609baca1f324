"""Measures that compare what was predicted with what is right, apart from any model and any file."""
