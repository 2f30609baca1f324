"""Exact conversion between Hugging Face and Megatron checkpoints.

`rules` describes a family's tensors as row blocks, and everything else follows that one description: `load` fills a
rank's shard straight from Hugging Face files (`sources`) or from a seed (`seeded`), `export` streams a Megatron checkpoint back into a
Hugging Face folder, `verify` proves that both compute the same logits. Values are moved, never computed: HF ->
Megatron -> HF gives the same bits. Importing this package imports nothing else.
"""
