"""Text to token ids and back, tokenizer training, and the plugins that change how text is cut into tokens.

Everything works on Hugging Face tokenizer folders through the `tokenizers` library; nothing here imports torch or transformers.
"""

from __future__ import annotations

from nemo_ext.tokenizers.ragged import RaggedBatch
from nemo_ext.tokenizers.text_tokenizer import TextTokenizer, load
from nemo_ext.tokenizers.training import train

__all__ = ["RaggedBatch", "TextTokenizer", "load", "train"]
