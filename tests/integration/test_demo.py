"""`sibol demo` as a user runs it, on text of his own, made short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from pydoc_data import topics

SETTINGS = ["train.max_steps=4", "train.seq_length=32", "train.global_batch_size=4", "train.micro_batch_size=4", "validation.batches=1"]
SHAPE = ["model.overrides.num_hidden_layers=2", "checkpoint.every_steps=1", "validation.every_steps=2", "schedule.warmup_steps=1"]


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recipes.cli.main", "demo", *SETTINGS, *SHAPE, "schedule.decay_steps=2"]
    return subprocess.run(
        [*command, "--input", str(folder / "mine.jsonl"), "--out", str(folder / "demo")], capture_output=True, text=True, timeout=400
    )


def test_the_demo_goes_from_text_to_a_report_and_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    with open(tmp_path / "mine.jsonl", "w", encoding="utf-8") as handle:
        for name in sorted(topics.topics)[:30]:
            handle.write(json.dumps({"text": topics.topics[name]}) + "\n")

    first = run_demo(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    for part in ("tokenizer/tokenizer.json", "dataset/manifest.json", "run/metrics.jsonl", "trained_hf/verify.json", "report/report.html"):
        assert (tmp_path / "demo" / part).stat().st_size > 0, part
    lines = [json.loads(line) for line in (tmp_path / "demo" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("event")] == [0, 2]  # it started, and went on after the stop half way
    results = json.loads((tmp_path / "demo" / "results" / "results.json").read_text())
    trained, untrained = (entry["metrics"]["bits_per_byte"]["value"] for entry in (results, results["baseline"]))
    assert f"{trained:.3f}" in first.stdout and f"{untrained:.3f}" in first.stdout
    page = (tmp_path / "demo" / "report" / "report.html").read_text()
    for entry in (results["metrics"]["bits_per_byte"], results["baseline"]["metrics"]["bits_per_byte"]):  # after, and before
        assert f"[{entry['low']:#.5g}, {entry['high']:#.5g}]" in page
    assert "bits_per_byte: differences in bits per byte" in page and "Bits per byte over bytes" in page

    assert not (tmp_path / "demo" / "run" / "checkpoints" / "step_0000002").exists()  # a checkpoint that made room for later ones
    (tmp_path / "demo" / "report" / "report.html").unlink()
    again = run_demo(tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("(already done)") == 8 and (tmp_path / "demo" / "report" / "report.html").is_file()


def test_an_input_that_does_not_exist_is_refused_and_not_made(tmp_path: Path) -> None:
    result = run_demo(tmp_path)
    assert result.returncode != 0 and "mine.jsonl does not exist" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "mine.jsonl").exists()
