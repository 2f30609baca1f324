"""Ways from a file of JSON lines to token ids, each a set-up that returns the work to be measured (see `measure`)."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH_DOCUMENTS = 1000
MEGATRON_CHUNK = 32  # documents per message, as tools/preprocess_data.py has it


def bare_encode_batch(tokenizer_dir: str, corpus: str) -> Callable[[], int]:
    """`tokenizers` alone: `encode_batch` over texts that lie in memory already, nothing kept. Returns the number of tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{tokenizer_dir}/tokenizer.json")
    texts = read_texts(corpus)

    def work() -> int:
        batches = (texts[start : start + BATCH_DOCUMENTS] for start in range(0, len(texts), BATCH_DOCUMENTS))
        return sum(len(encoding) for batch in batches for encoding in tokenizer.encode_batch(batch, add_special_tokens=False))

    return work


def sibol_prepare(tokenizer_dir: str, corpus: str, out: str, workers: int) -> Callable[[], int]:
    """`sibol data prepare`: reading, checking, encoding, splitting, digests and manifest. Returns the number of tokens."""
    from data_tools.prepare import PrepareOptions, prepare

    options = PrepareOptions(inputs=(corpus,), tokenizer=Path(tokenizer_dir), out=Path(out), workers=workers, overwrite=True)

    def work() -> int:
        return sum(split["tokens"] - split["documents"] for split in prepare(options)["splits"].values())  # end tokens are not encoded

    return work


def usual_way(tokenizer_dir: str, corpus: str, out: str, workers: int, encoder: str) -> Callable[[], int]:
    """What Megatron-LM's tools/preprocess_data.py does: a pool that encodes document by document, one writer that it sends ids to.

    `encoder` "transformers" calls the tokenizer as Megatron does, "tokenizers" leaves that wrapper out. Returns the number of tokens.
    """
    import numpy

    from nemo_ext.common.quiet import quiet_libraries
    from nemo_ext.tokenizers import load

    with quiet_libraries():
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
        from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(tokenizer_dir)  # what it imports is then there when the pool is forked, and costs the workers nothing
    opened = load(tokenizer_dir)
    dtype = numpy.uint16 if opened.dtype == numpy.uint16 else numpy.int32

    def work() -> int:
        builder, tokens = IndexedDatasetBuilder(f"{out}.bin", dtype=dtype), 0
        with multiprocessing.Pool(workers, initializer=_start_encoder, initargs=(tokenizer_dir, encoder)) as pool:
            with open(corpus, encoding="utf-8") as lines:
                for ids in pool.imap(_encode_line, lines, MEGATRON_CHUNK):
                    builder.add_document([*ids, opened.eod_id], [len(ids) + 1])
                    tokens += len(ids)
            pool.close()
            pool.join()
        builder.finalize(f"{out}.idx")
        return tokens

    return work


def read_texts(corpus: str) -> list[str]:
    """The texts of a file of JSON lines."""
    with open(corpus, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


_encode: Callable[[str], list[int]]  # one per worker process, made by its initializer


def _start_encoder(tokenizer_dir: str, encoder: str) -> None:
    global _encode
    tokenizer: Any
    if encoder == "transformers":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
        _encode = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    else:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(f"{tokenizer_dir}/tokenizer.json")
        _encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731


def _encode_line(line: str) -> list[int]:
    return _encode(json.loads(line)["text"])
