"""Raw text to Megatron indexed datasets: read, check, split, encode, write, inspect. No torch and no Megatron in here."""
