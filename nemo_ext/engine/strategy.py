"""NeMo's MegatronStrategy with what a bit-identical resume needs: seeds from the run, and random states in checkpoints."""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.dist_checkpointing.mapping import ShardedObject
from nemo import lightning as nl
from nemo.lightning import _strategy_lib

from nemo_ext.backend.device import DeviceGenerator

RANDOM_STATE_KEY = "sibol_random_state"


class ReproducibleStrategy(nl.MegatronStrategy):
    """MegatronStrategy that seeds from `seed` and saves and restores every random state that a step can draw from.

    A checkpoint read under another layout (tp, pp, dp) keeps its weights and optimizer state but starts with the fresh
    random states of that layout: there is no such thing as the same dropout under another split.
    """

    def __init__(self, *args: Any, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.device_generator: DeviceGenerator | None = None
        self._validation_losses: list[torch.Tensor] = []  # each [2]: mean loss of a global batch, tokens with a loss

    def setup_distributed(self) -> None:
        """Set up NeMo's process groups, then seed; NeMo itself always seeds with 1234."""
        super().setup_distributed()
        random.seed(self.seed)
        numpy.random.seed(self.seed % 2**32)
        torch.manual_seed(self.seed)
        tensor_parallel.model_parallel_cuda_manual_seed(self.seed, force_reset_rng=True)
        self.device_generator = DeviceGenerator()

    def setup_optimizers(self, trainer: Any) -> None:
        """Megatron's optimizers; where they are torch's AdamW, in one fused pass over each tensor instead of eight."""
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            for inner in getattr(optimizer.mcore_optimizer, "chained_optimizers", [optimizer.mcore_optimizer]):
                if isinstance(inner.optimizer, torch.optim.AdamW):
                    for group in inner.optimizer.param_groups:
                        group["fused"] = True

    def training_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> Any:
        """One training step, drawing from the device's random state."""
        assert self.device_generator is not None
        with self.device_generator.in_use():
            return super().training_step(dataloader_iter, *args, **kwargs)

    def validation_step(self, dataloader_iter: Any, *args: Any, **kwargs: Any) -> Any:
        """One validation step over a global batch, its loss kept for `mean_validation_loss`.

        NeMo logs the loss without a batch size, so Lightning weights the first step by 1 and the others by the micro
        batch size; and of the pipeline only the last stage knows it.
        """
        loss = super().validation_step(dataloader_iter, *args, **kwargs)
        weighted = torch.stack([loss.detach(), self.lightning_module.validation_loss_reduction.tokens[0]])
        _strategy_lib._sync_from_last_pipeline_stage(weighted, broadcast=True)
        self._validation_losses.append(weighted)
        return loss

    def mean_validation_loss(self) -> float:
        """Mean over all tokens with a loss since the last call, in nats. The same on every rank."""
        losses, tokens = torch.stack(self._validation_losses).double().unbind(dim=1)
        self._validation_losses.clear()
        return float((losses * tokens).sum() / tokens.sum().clamp(min=1))

    def optimizer_sharded_state_dict(self, is_loading: bool = False, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
        """NeMo's optimizer state with this rank's random states beside it, when they were saved under this layout."""
        state = super().optimizer_sharded_state_dict(is_loading=is_loading, metadata=metadata)
        layout, rank = _layout(), _place()
        if not is_loading or tuple((metadata or {}).get("random_layout", ())) == layout:
            state[RANDOM_STATE_KEY] = ShardedObject(RANDOM_STATE_KEY, self._random_states(), layout, rank, replica_id=0)
        return state

    @property
    def sharded_state_dict_metadata(self) -> dict[str, Any]:
        """NeMo's checkpoint metadata and the layout that the random states belong to."""
        return {**super().sharded_state_dict_metadata, "random_layout": _layout()}

    def load_optimizer_state_dict(self, checkpoint: Any, selective_restore: bool = False) -> None:
        """Load the optimizer, then the random states where the checkpoint brought some."""
        states = [entry.pop(RANDOM_STATE_KEY, None) for entry in checkpoint.get("optimizer", []) if isinstance(entry, dict)]
        super().load_optimizer_state_dict(checkpoint, selective_restore)
        if states and states[0] is not None:
            self._set_random_states(states[0])

    def _random_states(self) -> dict[str, Any]:
        assert self.device_generator is not None
        return {
            "torch": torch.get_rng_state(),
            "numpy": numpy.random.get_state(),
            "python": random.getstate(),
            "device": self.device_generator.get_state(),
            "tracker": tensor_parallel.get_cuda_rng_tracker().get_states(),
        }

    def _set_random_states(self, states: dict[str, Any]) -> None:
        assert self.device_generator is not None
        torch.set_rng_state(states["torch"])
        numpy.random.set_state(states["numpy"])
        random.setstate(states["python"])
        self.device_generator.set_state(states["device"])
        tensor_parallel.get_cuda_rng_tracker().set_states(states["tracker"])


def _layout() -> tuple[int, int, int]:
    """(pp, tp, dp) sizes."""
    return (
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_data_parallel_world_size(with_context_parallel=True),
    )


def _place() -> tuple[int, int, int]:
    """This rank's (pp, tp, dp) indices."""
    return (
        parallel_state.get_pipeline_model_parallel_rank(),
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(with_context_parallel=True),
    )
