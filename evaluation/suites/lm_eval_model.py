"""lm-evaluation-harness's own model class, told to count what it cuts off and to fail where a score is no number.

Imports lm_eval, so it is imported only when a model is loaded for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM

from evaluation.models import Advance
from nemo_ext.common.errors import DataError

DEFAULT_BATCH_SIZE = {"cpu": 8, "cuda": 32}


class _Watch(CacheHook):
    """The harness calls its cache once per finished request, which tells how far it is."""

    def __init__(self, advance: Advance, share: float) -> None:
        super().__init__(None)
        self._advance, self._share = advance, share

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        self._advance(self._share)


class HarnessModel(HFLM):
    """HFLM over a model that is loaded, on its device and in fp32. `truncated`: requests that lost tokens on their left."""

    def __init__(self, model: Any, tokenizer: Any, context: int, batch_size: int | None) -> None:
        rows = batch_size or DEFAULT_BATCH_SIZE["cpu" if model.device.type == "cpu" else "cuda"]
        super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal", max_length=context, batch_size=rows)
        self.context = context
        self.truncated = 0
        self._advance: Advance = lambda _: None
        self._bytes: dict[str, int] = {}

    def as_dict(self) -> dict[str, Any]:
        """What shapes the scores beyond the files of the model, for results.json."""
        return {
            "parameters": self.model.num_parameters(),
            "vocab_size": int(self.model.get_output_embeddings().weight.shape[0]),
            "context_tokens": self.context,
            "prefix_token": self.tokenizer.convert_ids_to_tokens(self.prefix_token_id),
        }

    def begin(self, bytes_of_requests: dict[str, int], advance: Advance) -> None:
        """Count afresh; `advance` is told of the bytes of each kind of request as its requests are done."""
        self._bytes, self._advance, self.truncated = bytes_of_requests, advance, 0

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As HFLM; raises DataError for a log-likelihood that is not finite, of which the harness would make accuracy 1."""
        self.cache_hook = _Watch(self._advance, self._bytes.get("loglikelihood", 0) / len(requests))
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        for request, (score, _) in zip(requests, scores, strict=True):
            if not math.isfinite(score):
                raise DataError(
                    f"The model gives document {request.doc_id} of task {request.task_name} the log-likelihood {score}, but a score "
                    "must be finite. The weights may hold NaN or infinity: check the training run that wrote them."
                )
        return scores

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
        """As HFLM; raises DataError where the logits of a token to be written are not finite, from which any text would come."""
        self.cache_hook = _Watch(self._advance, self._bytes.get("generate_until", 0) / len(requests))
        hook = self.model.register_forward_hook(_require_finite)
        try:
            written: list[str] = super().generate_until(requests, disable_tqdm=True)
        finally:
            hook.remove()
        return written

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> list[tuple[float, bool]]:
        for (context, continuation), before, after in requests:
            if not after or len(after) > self.context:
                raise DataError(
                    f"The continuation {continuation[:80]!r} after {context[-80:]!r} has {len(after)} tokens of its own; expected 1 to the "
                    f"context of {self.context}. Mend the task, or choose a larger --context."
                )
            self.truncated += len(before) + len(after) > self.context + 1
        scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        return scores

    def tok_batch_encode(self, strings: Sequence[str], *args: Any, left_truncate_len: int | None = None, **options: Any) -> Any:
        """As HFLM, which cuts prompts on the left to leave room for what is generated."""
        if left_truncate_len:
            self.truncated += sum(len(self.tok_encode(text)) > left_truncate_len for text in strings)
        return super().tok_batch_encode(list(strings), *args, left_truncate_len=left_truncate_len, **options)


def _require_finite(model: Any, inputs: Any, output: Any) -> None:
    if not output.logits[:, -1].isfinite().all():
        raise DataError(
            "The model's logits are not finite, so what it writes means nothing. The weights may hold NaN or infinity: check the training "
            "run that wrote them."
        )
