"""How a run is spread over GPUs: the settings that decide memory and speed, apart from the model."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_ext.config import RunConfig, data_parallel_size

DTYPE_BYTES = {"bf16-mixed": 2, "fp32": 4}


@dataclass(frozen=True)
class Layout:
    """Parallel sizes, batches and recomputation.

    dtype_bytes: of weights and activations. predicted: share of the tokens that logits are computed for. packed: sequences are laid
    end to end in rows of `seq_length`.
    """

    tp: int
    pp: int
    cp: int
    dp: int
    sequence_parallel: bool
    distributed_optimizer: bool
    micro_batch_size: int
    global_batch_size: int
    seq_length: int
    recompute: str
    dtype_bytes: int
    predicted: float = 1.0
    packed: bool = False

    @property
    def ranks(self) -> int:
        return self.tp * self.pp * self.cp * self.dp

    @property
    def micro_batches(self) -> int:
        """Micro batches of one step on one data parallel rank."""
        return self.global_batch_size // (self.dp * self.micro_batch_size)

    @property
    def tokens(self) -> int:
        """Tokens of one micro batch on one context parallel rank."""
        return self.micro_batch_size * self.seq_length // self.cp

    @property
    def split_tokens(self) -> int:
        """Tokens of one micro batch outside attention and MLP, which sequence parallelism splits over tp."""
        return self.tokens // self.tp if self.sequence_parallel else self.tokens


def layout_of(config: RunConfig, ranks: int, objective: str) -> Layout:
    """The layout of a run on `ranks` ranks; `objective` of its model is "causal" or "masked".

    Raises ConfigError when the ranks cannot hold whole copies of the model.
    """
    parallel, train = config.parallel, config.train
    return Layout(
        tp=parallel.tp,
        pp=parallel.pp,
        cp=parallel.cp,
        dp=data_parallel_size(config, ranks),
        sequence_parallel=parallel.sequence_parallel,
        distributed_optimizer=parallel.distributed_optimizer,
        micro_batch_size=train.micro_batch_size,
        global_batch_size=train.global_batch_size,
        seq_length=train.seq_length,
        recompute=train.recompute,
        dtype_bytes=DTYPE_BYTES[train.precision],
        predicted=config.data.masking.rate if objective == "masked" else 1.0,
        packed=objective == "masked" and config.data.packing,
    )
