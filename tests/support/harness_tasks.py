"""Task files of lm-evaluation-harness with data beside them, as a user would write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.tiny_language_models import TEXTS

CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 3.0}}
{more}
"""
WRITING = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
ROLLING = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list: [{{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}]
"""
OPTIONS = ("ng lahat", "again and again", "seed", "narra tree")


def choice_documents(number: int = 24) -> list[dict[str, Any]]:
    """ASCII prompts cut at a space, options of unequal lengths, and the right answer at every place in turn."""
    words = " ".join(text for text in TEXTS if text.isascii()).split()
    return [{"text": " ".join(words[start : start + 5]), "choices": list(OPTIONS), "answer": start % 4} for start in range(number)]


def write_task(folder: Path, name: str, template: str, documents: list[dict[str, Any]], more: str = "") -> Path:
    """`NAME.yaml` and its data in `folder`, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(template.format(name=name, data=data, more=more), encoding="utf-8")
    return folder
