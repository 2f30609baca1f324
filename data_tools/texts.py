"""Texts of input files one after the other, for tokenizer training and measuring. The same files and checks as for datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from data_tools.bad_lines import BadLines
from data_tools.documents import BLANK_LINE, Document, parse
from data_tools.encode import Reject
from data_tools.inputs import FoundInputs
from data_tools.lines import LineReader
from nemo_ext.tokenizers import TextTokenizer

MEASURED_BYTES = 8 << 20  # enough text for three digits of bytes per token


def read_texts(
    inputs: FoundInputs, text_field: str, bad_lines: BadLines, on_bytes: Callable[[int], None] = lambda count: None
) -> Iterator[str]:
    """Every document's text. `bad_lines` decides about lines that hold none; `on_bytes` hears how many bytes were read so far."""
    for batch in LineReader(inputs):
        for source in batch.documents:
            found = parse(source, text_field, None)
            if isinstance(found, Document):
                yield found.text
            elif found.reason == BLANK_LINE:
                bad_lines.counts[BLANK_LINE] += 1
            else:
                bad_lines.add(Reject(source, found))
        on_bytes(batch.bytes_read)


def measure(tokenizer: TextTokenizer, texts: Iterator[str], most_bytes: int = MEASURED_BYTES) -> tuple[int, int]:
    """Tokens and UTF-8 bytes of the first texts, up to about `most_bytes`."""
    tokens = size = 0
    for text in texts:
        tokens += len(tokenizer.encode_batch([text]).ids)
        size += len(text.encode("utf-8"))
        if size >= most_bytes:
            break
    return tokens, size
