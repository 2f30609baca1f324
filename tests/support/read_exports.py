"""What a Hugging Face folder computes under the transformers that is installed: `read_exports.py FOLDER_OF_FOLDERS OUT.pt`.

Imports nothing of this project, because it also runs with another transformers than the project's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LENGTH, NEW_TOKENS = 48, 6


def computed(folder: Path) -> dict[str, Any]:
    """Version, logits `[2, LENGTH, vocab]`, and of a decoder what it goes on with, greedily."""
    import torch
    import transformers

    config = json.loads((folder / "config.json").read_text())
    is_masked = config["architectures"][0].endswith("ForMaskedLM")
    auto = transformers.AutoModelForMaskedLM if is_masked else transformers.AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    tokens = torch.randint(3, config["vocab_size"], (2, LENGTH), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        result = {"version": transformers.__version__, "class": type(model).__name__, "logits": model.eval()(tokens).logits}
        if not is_masked:
            result["continued"] = model.generate(tokens, max_new_tokens=NEW_TOKENS, do_sample=False)
    result["problems"] = [str(name) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in report[kind]]
    result["dtype"] = str(transformers.AutoModel.from_pretrained(folder, dtype="auto").dtype)
    return result


def main() -> None:
    import torch

    folders, out = Path(sys.argv[1]), sys.argv[2]
    torch.save({folder.name: computed(folder) for folder in sorted(folders.iterdir())}, out)


if __name__ == "__main__":
    main()
