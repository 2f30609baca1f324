"""Pieces and rows: nothing is lost, nothing is twice, nothing is too long, and rows depend on seed and epoch alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nemo_ext.common.errors import DataError
from nemo_ext.tasks.packing import Pieces, RowIndex, packed_rows

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = st.lists(st.integers(0, 90), min_size=1, max_size=60).filter(any)


@given(DOCUMENTS, st.integers(5, 40), st.integers(0, 4))
def test_pieces_cover_every_token_of_every_document_once(content: list[int], longest: int, frame: int) -> None:
    pieces = Pieces(np.array(content), longest, frame)
    documents, offsets, lengths = pieces.locate(np.arange(pieces.count))
    assert (lengths > 0).all() and (lengths + frame <= longest).all()
    covered = [
        (document, offset + place) for document, offset, length in zip(documents, offsets, lengths, strict=True) for place in range(length)
    ]
    assert covered == [(document, place) for document, length in enumerate(content) for place in range(length)]
    assert pieces.cut_documents == sum(length > longest - frame for length in content)
    assert np.array_equal(pieces.lengths(), lengths + frame)


@given(DOCUMENTS, st.integers(1, 5), st.integers(0, 2**32), st.booleans())
def test_every_epoch_has_every_piece_once_in_rows_that_fit(content: list[int], epochs: int, seed: int, packing: bool) -> None:
    pieces = Pieces(np.array(content), 20, 2)
    with TemporaryDirectory() as folder:
        index = RowIndex(pieces, 32 if packing else None, seed, Path(folder) / "rows.npy")
        index.require(1)
        while index.epochs < epochs:
            index.require(len(index) + 1)
        rows = [index.row(number) for number in range(len(index))]
        lengths = pieces.lengths()
        for epoch in range(epochs):
            own = np.concatenate([row.pieces for row in rows if row.epoch == epoch])
            assert sorted(own.tolist()) == list(range(pieces.count))
        for number, row in enumerate(rows):
            tokens = int(lengths[row.pieces].sum())
            assert tokens == int(index.tokens(np.array([number]))[0])
            assert tokens <= 32 and (packing or len(row.pieces) == 1)
        assert index.first_epoch() == (sum(row.epoch == 0 for row in rows), int(lengths.sum()))


def test_a_longer_run_extends_the_index_and_moves_nothing(tmp_path: Path) -> None:
    pieces = Pieces(np.arange(50) * 3, 40, 2)
    short, whole = (RowIndex(pieces, 64, 7, tmp_path / name) for name in ("short.npy", "whole.npy"))
    short.require(10)
    before = [short.row(number) for number in range(len(short))]
    again = RowIndex(pieces, 64, 7, tmp_path / "short.npy")
    again.require(500)
    whole.require(500)
    for number in range(500):
        ours, expected = again.row(number), whole.row(number)
        assert ours.epoch == expected.epoch and np.array_equal(ours.pieces, expected.pieces)
        assert number >= len(before) or np.array_equal(ours.pieces, before[number].pieces)


def test_runs_that_share_an_index_never_shorten_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, file = Pieces(np.arange(50) * 3, 40, 2), tmp_path / "rows.npy"
    first, other = RowIndex(pieces, 64, 7, file), RowIndex(pieces, 64, 7, file)
    extended = first._extended
    whole = RowIndex(pieces, 64, 7, tmp_path / "whole.npy")
    whole.require(500)

    def while_another_run_writes(rows: int) -> NDArray[np.int64]:
        with pytest.raises(BlockingIOError), locked_by_another(file.with_suffix(".lock")):
            pass
        return extended(rows)

    monkeypatch.setattr(first, "_extended", while_another_run_writes)
    first.require(500)
    length = file.stat().st_size
    monkeypatch.setattr(other, "_read_file", once_late(other._read_file))
    other.require(10)  # looked before the first had written, and comes to write after it
    assert file.stat().st_size == length and len(other) >= 500
    assert all(np.array_equal(first.row(number).pieces, whole.row(number).pieces) for number in range(500))


def once_late(read: Callable[[], None]) -> Callable[[], None]:
    """`read`, which finds no file the first time."""
    calls: list[Callable[[], None]] = [lambda: None]
    return lambda: (calls.pop() if calls else read)()


@contextmanager
def locked_by_another(path: Path) -> Iterator[None]:
    """Lock a file from another process, as another run would; raises BlockingIOError when that cannot have it."""
    program = (
        "import sys; from pathlib import Path; from nemo_ext.common.locks import locked_file\nwith locked_file(Path(sys.argv[1])): pass"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if "BlockingIOError" in result.stderr:
        raise BlockingIOError(result.stderr)
    assert result.returncode == 0, result.stderr
    yield


def test_the_order_depends_on_seed_and_epoch(tmp_path: Path) -> None:
    pieces = Pieces(np.full(40, 10), 12, 2)
    orders = []
    for seed in (1, 2):
        index = RowIndex(pieces, None, seed, tmp_path / f"{seed}.npy")
        index.require(80)
        orders += [[int(index.row(number).pieces[0]) for number in range(start, start + 40)] for start in (0, 40)]
    assert len({tuple(order) for order in orders}) == 4


def test_packing_wastes_next_to_nothing_and_keeps_the_order_of_short_pieces_random() -> None:
    generator = np.random.default_rng(3)
    for capacity, least in ((8192, 0.995), (1024, 0.985)):
        lengths = np.clip(generator.lognormal(np.log(300), 0.9, 20_000).astype(np.int64), 2, 1024)
        rows = packed_rows(lengths, capacity)
        filled = np.bincount(rows, weights=lengths)
        assert filled.max() <= capacity and filled.sum() / (len(filled) * capacity) > least
        first, last = lengths[rows < len(filled) // 4], lengths[rows >= 3 * len(filled) // 4]
        assert 0.9 < first.mean() / last.mean() < 1.1  # no end of an epoch is left with the short ones


def test_a_split_of_empty_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only empty documents"):
        RowIndex(Pieces(np.zeros(5), 12, 2), None, 1, tmp_path / "rows.npy").require(1)
