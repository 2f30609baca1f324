"""What `sibol demo` does, stage by stage: from documents to a report, through the same functions as the other verbs.

Every stage leaves a folder that is complete or not there, so a demo that was interrupted goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nemo_ext.common.errors import DataError, OutputExistsError, SibolError
from nemo_ext.common.files import read_json, write_json
from nemo_ext.config import RunConfig, apply_overrides

VOCAB_SIZE = 2048
SPLIT = "80,10,10"


class Demo:
    """One demo folder. `input` is a JSONL file (field "text") or folder of the user's; None takes Python's own documentation."""

    def __init__(self, out: Path, input: Path | None, ranks: int, overrides: Sequence[str]) -> None:
        from recipes.demo import demo

        if input is not None and not input.exists():
            raise DataError(f"--input {input} does not exist. Give a JSONL file with a field 'text', or a folder of .txt files.")
        self.out, self.input, self.ranks = out, input, ranks
        self.tokenizer, self.dataset = out / "tokenizer", out / "dataset"
        self.untrained, self.trained = out / "untrained_hf", out / "trained_hf"
        self.results, self.report = out / "results", out / "report"
        layout = [f"parallel.tp={ranks}"] if ranks != 2 else []
        paths = [f"data.path={self.dataset}", f"output_dir={out / 'run'}"]
        self.config: RunConfig = apply_overrides(demo(), [*layout, *paths, *overrides])

    def stages(self) -> list[tuple[str, Path, Callable[[], None]]]:
        """(what, the file that says it is done, how), in order."""
        return [
            ("read documents", self.documents, self.read_documents),
            ("train a tokenizer", self.tokenizer / "tokenizer.json", self.train_tokenizer),
            ("write a Megatron indexed dataset", self.dataset / "manifest.json", self.prepare),
            (f"train on {self.ranks} rank(s), and stop half way", self.newest_checkpoint(self.half), self.train_half),
            ("resume and finish", self.newest_checkpoint(self.config.train.max_steps), self.train_rest),
            ("export the untrained model", self.untrained / "config.json", self.export_untrained),
            ("export to Hugging Face and verify", self.trained / "config.json", self.export_trained),
            ("evaluate bits per byte on held-out text", self.results / "results.json", self.evaluate),
            ("write the report", self.report / "report.html", self.write_report),
        ]

    @property
    def documents(self) -> Path:
        """The JSONL file that is read."""
        return self.input or self.out / "documents.jsonl"

    @property
    def half(self) -> int:
        """The step after which the run stops, to be resumed."""
        return max(1, self.config.train.max_steps // 2)

    def newest_checkpoint(self, step: int) -> Path:
        """The newest checkpoint if it is one after `step` or later (older ones may be gone already), else where that will be."""
        from nemo_ext.engine.run_folder import RunFolder

        folder = RunFolder(self.config.output_dir)
        return folder.checkpoint(max([step, *folder.steps()[-1:]])) / "state.json"

    def claim(self) -> None:
        """Write down what the demo folder is about. Raises OutputExistsError when it is about another input or other settings."""
        from nemo_ext.config import to_yaml

        about = {
            "input": str(self.input.resolve()) if self.input else "pydoc_data.topics",
            "ranks": self.ranks,
            "settings": to_yaml(self.config),
        }
        path = self.out / "demo.json"
        if path.is_file() and read_json(path, "demo folder") != about:
            raise OutputExistsError(
                f"{self.out} holds a demo with another input or other settings. Choose another --out, or pass --overwrite."
            )
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(path, about)

    def read_documents(self) -> None:
        """Python's documentation topics as JSONL (a user's file is read as it is)."""
        from data_tools.python_docs import write_python_docs

        write_python_docs(self.documents)

    def train_tokenizer(self) -> None:
        """Byte-level BPE on the documents."""
        from recipes.cli.tokenizer import train

        train([str(self.documents)], out=self.tokenizer, vocab_size=VOCAB_SIZE)

    def prepare(self) -> None:
        """Tokens in Megatron's format, split by hash of the document id."""
        from recipes.cli.data_prepare import prepare

        prepare([str(self.documents)], tokenizer=self.tokenizer, out=self.dataset, split=SPLIT)

    def train_half(self) -> None:
        """Train, and leave after half of the steps as if time had run out."""
        from nemo_ext.engine.launch import CONTINUE_EXIT_CODE

        self._train(replace(self.config, train=replace(self.config.train, stop_after_step=self.half)), expected=CONTINUE_EXIT_CODE)

    def train_rest(self) -> None:
        """Continue from the checkpoint to the last step."""
        self._train(replace(self.config, train=replace(self.config.train, stop_after_step=None)), expected=0)

    def _train(self, config: RunConfig, expected: int) -> None:
        from nemo_ext.engine.local_run import run_locally
        from nemo_ext.engine.resolve import resolve

        code = run_locally(resolve(config, self.ranks))
        if code != expected:
            raise SibolError(
                f"Training ended with exit code {code}; see the messages above. The same command tries again from the last checkpoint."
            )

    def export_untrained(self) -> None:
        """The model before its first step: the same seed gives the same weights as on the ranks."""
        from nemo_ext.convert.initial import export_initial

        export_initial(self.config.output_dir, self.untrained)

    def export_trained(self) -> None:
        """The last checkpoint as a Hugging Face folder, its logits compared with Megatron's."""
        from recipes.cli.export import export

        export(Path(self.config.output_dir), self.trained)

    def evaluate(self) -> None:
        """Bits per byte of the test split, trained against untrained."""
        from recipes.cli.evaluate import evaluate

        evaluate(self.trained, data=self.dataset, out=self.results, baseline=self.untrained)

    def write_report(self) -> None:
        """Curves of the run, and the model before and after it with intervals, on one page."""
        from evaluation.report import write_report

        write_report([self.config.output_dir, self.results], self.report, title="Demo: before and after training", overwrite=True)

    def summary(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the closing table."""
        results = read_json(self.results / "results.json", "demo results")
        rows = []
        for name, metrics in (("untrained", results["baseline"]["metrics"]), ("trained", results["metrics"])):
            entry = metrics["bits_per_byte"]
            rows.append([name, f"{entry['value']:.3f}", f"{entry['low']:.3f} to {entry['high']:.3f}"])
        ratio = results["metrics"]["bits_per_byte"]["value"] / results["baseline"]["metrics"]["bits_per_byte"]["value"]
        rows.append(["trained / untrained", f"{ratio:.3f}" if math.isfinite(ratio) else "-", ""])
        return ["model", "bits per byte (held-out text)", "95 % interval"], rows
