"""Model families: sizes, Hugging Face config -> Megatron config, Hugging Face weights <-> Megatron weights."""
