"""lm-evaluation-harness loads an export by its `hf` model and scores a task of one's own with it, offline."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.common.files import read_json
from nemo_ext.convert.sources import HuggingFaceWeights
from nemo_ext.convert.stream import write_hf_weights
from nemo_ext.models.family import family_of
from tests.support.tiny_language_models import TEXTS, save_tiny_qwen2

TASK = """
task: sibol_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
CHOICES = [" ng lahat", " again", " seed", " 🌱"]


def scored(folder: str, tasks: str) -> list[list[float]]:
    """The harness's log-likelihoods of each document's choices."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=tasks, include_defaults=False)
    arguments = f"pretrained={folder},dtype=float32"
    results = lm_eval.simple_evaluate(
        model="hf", model_args=arguments, tasks=["sibol_choices"], task_manager=manager, device="cpu", batch_size=2, bootstrap_iters=0
    )
    samples = sorted(results["samples"]["sibol_choices"], key=lambda sample: sample["doc_id"])
    return [[float(response[0]) for response in sample["filtered_resps"]] for sample in samples]


def by_hand(folder: str, documents: list[dict[str, Any]]) -> list[list[float]]:
    """The same from transformers' logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = []
    for document in documents:
        row = []
        for choice in document["choices"]:
            context, whole = tokenizer.encode(document["text"]), tokenizer.encode(document["text"] + choice)
            with torch.no_grad():
                chances = torch.log_softmax(model(torch.tensor([whole])).logits[0].double(), dim=-1)
            row.append(sum(chances[i - 1, whole[i]].item() for i in range(len(context), len(whole))))
        rows.append(row)
    return rows


def test_lm_eval_scores_an_export_as_its_logits_say(tmp_path: Path):
    source = save_tiny_qwen2(tmp_path / "source", context=128)
    config = read_json(source / "config.json")
    rules = family_of(config).build_mapping(config)
    write_hf_weights(config, rules, HuggingFaceWeights(source, rules), tmp_path / "export", model_files_dir=source)
    documents = [{"text": text[:18], "choices": CHOICES, "answer": 0} for text in TEXTS]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(document) for document in documents))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "choices.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    found = scored(str(tmp_path / "export"), str(tmp_path / "tasks"))
    expected = by_hand(str(tmp_path / "export"), documents)
    assert len(found) == len(documents) and all(math.isfinite(value) for row in found for value in row)
    assert found == [pytest.approx(row, abs=1e-4) for row in expected]
