"""Gemma 3: the text models of that name, and the text part of the multimodal ones."""
