"""Transformer layers that need neither Transformer Engine nor Apex: the same code on CPU and GPU, with the checkpoint
keys that Transformer Engine layers have. What a model is made of is decided in nemo_ext.models, not here.
"""
