"""How a study runs: configuration, CPU backend, layers, model families, conversion, tokenizers, tasks and the engine.

Importing this package imports nothing else, so that planning and submitting stay light.
"""
