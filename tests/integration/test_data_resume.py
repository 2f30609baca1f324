"""Killed, full or split over machines: the dataset is the same bytes as of one undisturbed run, or there is none."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_tools.merge import merge
from data_tools.prepare import PrepareOptions, Progress, prepare
from data_tools.shards import SHARDS_FOLDER
from nemo_ext.common.dataset import open_dataset
from nemo_ext.common.errors import ConfigError, DataError, DiskFullError, OutputExistsError
from nemo_ext.tokenizers import TextTokenizer
from tests.support.small_text import TEXTS, small_tokenizer, write_jsonl

REPOSITORY = Path(__file__).resolve().parents[2]
UNIT_BYTES = 3000


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer") / "small")


@pytest.fixture
def options(tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrepareOptions:
    monkeypatch.setattr("data_tools.units.UNIT_BYTES", UNIT_BYTES)
    sources = [write_jsonl(tmp_path / "a.jsonl", TEXTS), write_jsonl(tmp_path / "b.jsonl", ["spam", 7, *TEXTS[::-1]])]
    inputs = tuple(map(str, sources))
    return PrepareOptions(inputs, tokenizer.path, tmp_path / "set", split="60,20,20", workers=1, on_bad_line="quarantine")


@pytest.fixture
def expected(options: PrepareOptions, tmp_path: Path) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    prepare(dataclasses.replace(options, out=tmp_path / "undisturbed"))
    return contents(tmp_path / "undisturbed")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Stopped(Exception):
    """Ends a run from outside, as Ctrl-C would."""


def stop_after(count: int) -> Any:
    def on_progress(progress: Progress) -> None:
        nonlocal count
        count -= 1
        if count < 0:
            raise Stopped

    return on_progress


@pytest.mark.parametrize("reports", [0, 3, 9])
def test_an_interrupted_run_goes_on_at_the_first_unfinished_unit(options: PrepareOptions, expected: dict[str, bytes], reports: int) -> None:
    with pytest.raises(Stopped):
        prepare(options, stop_after(reports))
    kept = len(list(options.out.glob(f"{SHARDS_FOLDER}/*/0*")))
    seen: list[Progress] = []
    prepare(options, seen.append)
    assert contents(options.out) == expected
    assert kept >= reports // 3 and seen[0].bytes_read >= kept * UNIT_BYTES


def test_other_options_begin_anew_and_say_which(
    options: PrepareOptions, expected: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Stopped):
        prepare(dataclasses.replace(options, min_tokens=60), stop_after(5))
    prepare(options)
    assert contents(options.out) == expected
    assert "work under another plan (limits differ): it is begun anew" in caplog.text


def test_units_of_a_changed_input_are_encoded_again(options: PrepareOptions, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        prepare(options, stop_after(9))
    source = Path(options.inputs[0])
    source.write_bytes(source.read_bytes().replace(b"sibol", b"libos"))
    prepare(options)
    prepare(dataclasses.replace(options, out=tmp_path / "fresh"))
    assert contents(options.out) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("count", [1, 3, 40])
def test_shards_merge_to_the_bytes_of_one_run(options: PrepareOptions, expected: dict[str, bytes], count: int) -> None:
    for number in random.Random(count).sample(range(1, count + 1), count):
        prepare(dataclasses.replace(options, shard=f"{number}/{count}"))
    merge(options.out)
    assert contents(options.out) == expected
    with pytest.raises(OutputExistsError, match="complete dataset already"):
        merge(options.out)


def test_a_merge_names_shards_that_are_missing_incomplete_or_foreign(options: PrepareOptions, expected: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="no shards to merge"):
        merge(options.out)
    for number in (1, 3):
        prepare(dataclasses.replace(options, shard=f"{number}/3"))
    with pytest.raises(DataError, match=r"Missing shards of .*: 2/3\. Run"):
        merge(options.out)
    with pytest.raises(Stopped):
        prepare(dataclasses.replace(options, shard="2/3"), stop_after(4))
    with pytest.raises(DataError, match=r"Incomplete shards: 2/3 \(\d units\)"):
        merge(options.out)
    prepare(dataclasses.replace(options, shard="2/3", seed=5))
    with pytest.raises(DataError, match=r"Shard 2-of-3 does not belong to shard 1-of-3: seed differ \(seed: 5 against 1234\)"):
        merge(options.out)
    prepare(dataclasses.replace(options, shard="2/3"))
    merge(options.out)
    assert contents(options.out) == expected


def test_lines_that_are_errors_to_prepare_are_errors_to_merge(options: PrepareOptions, expected: dict[str, bytes]) -> None:
    Path(options.inputs[1]).write_text(Path(options.inputs[1]).read_text() + "bad\n")
    strict = dataclasses.replace(options, shard="1/1", on_bad_line="fail")
    with pytest.raises(DataError, match=r"b\.jsonl:2: not-an-object"):
        prepare(strict)
    prepare(dataclasses.replace(strict, on_bad_line="skip"))
    with pytest.raises(DataError, match=r"b\.jsonl:2: not-an-object"):
        prepare(strict)
    with pytest.raises(DataError, match=r"b\.jsonl:2: not-an-object .*\n.*finished work is kept"):
        merge(options.out)
    assert prepare(dataclasses.replace(options, on_bad_line="skip"))["skipped"] == {"not-an-object": 1, "broken-json": 1}


def test_a_damaged_unit_stops_the_merge(options: PrepareOptions) -> None:
    prepare(dataclasses.replace(options, shard="1/1"))
    file = next(options.out.glob(f"{SHARDS_FOLDER}/1-of-1/000002/train.ids"))
    os.truncate(file, file.stat().st_size - 2)
    with pytest.raises(DataError, match=r"train\.ids is damaged: .* bytes found, .* expected"):
        merge(options.out)


@pytest.mark.parametrize("text", ["7", "0/3", "4/3", "a/b", "1/0", ""])
def test_a_shard_is_a_number_and_a_count(options: PrepareOptions, text: str) -> None:
    with pytest.raises(ConfigError, match="such as 7/20"):
        prepare(dataclasses.replace(options, shard=text))


def run_command(options: PrepareOptions, *more: str) -> subprocess.Popen[bytes]:
    """The command on the same inputs, in units as small as here."""
    code = f"import data_tools.units as units; units.UNIT_BYTES = {UNIT_BYTES}; from recipes.cli.data import app; app()"
    arguments = ["--tokenizer", options.tokenizer, "--out", options.out, "--split", options.split, "--on-bad-line", options.on_bad_line]
    command = [sys.executable, "-c", code, "prepare", *options.inputs, *arguments, "--workers", "2", *more]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_until(condition: Any, timeout_s: float = 60.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.005)


@pytest.mark.parametrize("moment", range(4))
def test_a_killed_run_leaves_no_processes_and_the_next_one_gives_the_same_bytes(
    options: PrepareOptions, expected: dict[str, bytes], moment: int
) -> None:
    command = run_command(options)
    wait_until(lambda: len(list(options.out.glob(f"{SHARDS_FOLDER}/1-of-1/0*"))) >= 3 * moment or command.poll() is not None)
    workers = children_of(command.pid) if command.poll() is None else []
    command.send_signal(signal.SIGKILL)
    command.communicate()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert not (options.out / "manifest.json").exists() or contents(options.out) == expected
    prepare(dataclasses.replace(options, overwrite=True))
    assert contents(options.out) == expected


DIE_WHILE_PUBLISHING = """
import os, types
from pathlib import Path
import data_tools.merge as merge
left = [{moves}]
def move(*paths):
    left[0] -= 1
    left[0] >= 0 or os._exit(9)
    os.replace(*paths)
merge.os = types.SimpleNamespace(replace=move)
merge.merge(Path({out!r}))
"""


@pytest.mark.parametrize(("moves", "again"), [(0, "merge"), (2, "prepare"), (6, "merge"), (6, "prepare")])
def test_a_merge_killed_while_files_move_to_their_place_leaves_no_dataset_and_is_repeated(
    options: PrepareOptions, expected: dict[str, bytes], moves: int, again: str
) -> None:
    prepare(dataclasses.replace(options, shard="1/1"))
    code = DIE_WHILE_PUBLISHING.format(moves=moves, out=str(options.out))
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 9
    with pytest.raises(DataError, match="is not a Sibol dataset"):
        open_dataset(options.out)
    merge(options.out) if again == "merge" else prepare(options)
    assert contents(options.out) == expected


@pytest.mark.parametrize("moment", range(2))
def test_a_killed_worker_ends_the_run_in_one_message_and_its_work_is_taken_up(
    options: PrepareOptions, expected: dict[str, bytes], moment: int
) -> None:
    command = run_command(options)
    wait_until(lambda: len(list(options.out.glob(f"{SHARDS_FOLDER}/1-of-1/0*"))) >= 1 + 4 * moment)
    os.kill(children_of(command.pid)[-1], signal.SIGKILL)
    _, error = command.communicate()
    assert command.returncode != 0 and b"A worker process died" in error and b"finished work is kept" in error
    assert list((options.out / SHARDS_FOLDER / "1-of-1").glob("0*"))
    prepare(options)
    assert contents(options.out) == expected


def test_two_runs_do_not_write_the_same_shard(options: PrepareOptions) -> None:
    refused: list[Progress] = []

    def again(progress: Progress) -> None:
        if not refused:
            with pytest.raises(OutputExistsError, match="Another process is at work"):
                prepare(options)
            refused.append(progress)

    prepare(options, again)
    assert refused


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, as large as it is mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size", ["32k", "112k", "144k"])
def test_a_full_disk_is_one_message_and_with_more_room_the_same_command_goes_on(
    options: PrepareOptions, expected: dict[str, bytes], small_disk: Path, size: str
) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
    on_disk = dataclasses.replace(options, out=small_disk / "set")
    with pytest.raises(DiskFullError, match=r"No space left while writing .*run the same command again"):
        prepare(on_disk)
    with pytest.raises(DataError, match="is not a Sibol dataset"):
        open_dataset(on_disk.out)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    prepare(on_disk)
    assert contents(on_disk.out) == expected


def test_quarantined_lines_have_their_number_in_the_whole_file(options: PrepareOptions) -> None:
    source = Path(options.inputs[0])
    lines = source.read_text().splitlines()
    for number in (1, 50, 100, 120):
        lines[number - 1] = f"bad {number}"
    source.write_text("\n".join(lines))
    prepare(options)
    records = [json.loads(line) for line in (options.out / "quarantine.jsonl").read_text().splitlines()]
    found = [(record["file"], record["line"], record["raw"]) for record in records]
    assert found[:4] == [(str(source), number, f"bad {number}") for number in (1, 50, 100, 120)]
    with pytest.raises(DataError, match=r"a\.jsonl:50: broken-json"):
        lines[0] = '{"text": "good"}'
        source.write_text("\n".join(lines))
        prepare(dataclasses.replace(options, overwrite=True, on_bad_line="fail"))
