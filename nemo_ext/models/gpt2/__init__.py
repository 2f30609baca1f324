"""GPT-2: learned positions, LayerNorm with bias, plain MLP."""
