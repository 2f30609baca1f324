"""Replacements after import, for what a local rewrite cannot express. Each says what is wrong and where it was seen."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from nemo_ext.common.processes import end_with_parent

if TYPE_CHECKING:
    import torch


def _cpu_random_states(module: ModuleType) -> None:
    """megatron.core.tensor_parallel.random (CPU): the tracker's states live in CUDA generators through torch's C API.

    Here they live in torch's default generator. Upstream's `fork` also warns when the CPU state changed inside it,
    which on the CPU is what it is for.
    """
    import torch

    def get_state(device: Any = "cpu", clone: bool = False, graph_safe: bool = False) -> torch.Tensor:
        del device, clone, graph_safe
        return torch.get_rng_state()

    def set_state(new_state: torch.Tensor, device: int = -1, graph_safe: bool = False) -> None:
        del device, graph_safe
        torch.set_rng_state(new_state)

    @contextlib.contextmanager
    def fork(self: Any, name: str = module._MODEL_PARALLEL_RNG_TRACKER_NAME) -> Iterator[None]:
        assert name in self.states_, f"random state {name} is not added"
        outside = torch.get_rng_state()
        torch.set_rng_state(self.states_[name])
        try:
            yield
        finally:
            self.states_[name] = torch.get_rng_state()
            torch.set_rng_state(outside)

    module._get_cuda_rng_state = get_state  # type: ignore[attr-defined]
    module._set_cuda_rng_state = set_state  # type: ignore[attr-defined]
    module.CudaRNGStatesTracker.fork = fork


def _cpu_checkpoint_writer(module: ModuleType) -> None:
    """megatron.core.dist_checkpointing.strategies.filesystem_async (CPU): the queue of write results is served by a
    Manager process that is spawned, which imports everything again: 7 to 10 s a rank. A fork is safe without CUDA. A
    Manager does not notice that its rank was killed; this one is told by Linux, so that no process is left behind.
    """
    from multiprocessing.managers import SyncManager

    def results_queue() -> Any:
        if module._results_queue is None:
            manager = SyncManager(ctx=module.mp.get_context("fork"))
            manager.start(initializer=end_with_parent, initargs=(signal.SIGKILL,))
            module._results_queue = manager.Queue()  # type: ignore[attr-defined]
        return module._results_queue

    module._get_write_results_queue = results_queue  # type: ignore[attr-defined]


def _torch_adam_in_distributed_optimizer(module: ModuleType) -> None:
    """megatron.core.optimizer.distrib_optimizer (any device, where neither Apex nor Transformer Engine is installed).

    With torch's Adam, `state_dict()` asserts while the optimizer has no state (so that nothing can be loaded into a
    fresh run, nor saved before step 1), and `load_state_dict()` gives all parameters one shared `step` tensor, which
    Adam then increments once per parameter. Step travels in the param groups, not in the parameter state.
    """
    if module.HAVE_APEX_OR_TE:
        return
    import torch

    optimizer_class = module.DistributedOptimizer
    state_dict_of = optimizer_class.state_dict
    load_state_dict_of = optimizer_class.load_state_dict
    set_states_of = optimizer_class._set_main_param_and_optimizer_states

    def give_zero_state(inner: torch.optim.Optimizer) -> None:
        if inner.state or not isinstance(inner, (torch.optim.Adam, torch.optim.AdamW)):
            return
        for group in inner.param_groups:
            for parameter in group["params"]:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                inner.state[parameter] = {"step": torch.tensor(0.0), **moments}

    @functools.wraps(state_dict_of)
    def state_dict(self: Any) -> dict[str, Any]:
        give_zero_state(self.optimizer)
        return state_dict_of(self)

    @functools.wraps(load_state_dict_of)
    def load_state_dict(self: Any, state: dict[str, Any]) -> None:
        load_state_dict_of(self, state)
        for parameter_state in self.optimizer.state.values():
            if isinstance(parameter_state.get("step"), torch.Tensor):
                parameter_state["step"] = parameter_state["step"].clone()

    @functools.wraps(set_states_of)
    def set_states(self: Any, model_param: torch.nn.Parameter, tensors: dict[str, torch.Tensor]) -> None:
        if self.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8:
            set_states_of(self, model_param, tensors)
            return
        group, order = self.model_param_group_index_map[model_param]
        main = self.optimizer.param_groups[group]["params"][order]
        for name, destination in {"param": main, **self.optimizer.state[main]}.items():
            if name != "step" or name in tensors:
                destination.copy_(tensors[name])

    optimizer_class.state_dict = state_dict
    optimizer_class.load_state_dict = load_state_dict
    optimizer_class._set_main_param_and_optimizer_states = set_states


def _no_exchange_with_oneself(module: ModuleType) -> None:
    """megatron.core.distributed.param_and_grad_buffer (CPU): the distributed optimizer scatters and gathers whole buffers
    even among one data parallel rank. NCCL does nothing then, gloo copies each buffer twice: 7 % of a step of 10 M parameters.
    """

    def unless_alone(collective: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(collective)
        def exchange(output: torch.Tensor, input: torch.Tensor, *args: Any, group: Any, **kwargs: Any) -> Any:
            if group.size() == 1 and output.data_ptr() == input.data_ptr():
                return None
            return collective(output, input, *args, group=group, **kwargs)

        return exchange

    module.dist_all_gather_func = unless_alone(module.dist_all_gather_func)  # type: ignore[attr-defined]
    module.dist_reduce_scatter_func = unless_alone(module.dist_reduce_scatter_func)  # type: ignore[attr-defined]


def _weight_gradients_in_place(module: ModuleType) -> None:
    """megatron.core.tensor_parallel.layers (CPU): `config.gradient_accumulation_fusion` asks for a CUDA extension that adds a
    weight's gradient to its buffer while it computes it; a matrix product with an accumulator does that, too.
    """

    def accumulate(inputs: torch.Tensor, grad_output: torch.Tensor, main_grad: torch.Tensor) -> None:
        """inputs `[tokens, in]`, grad_output `[tokens, out]`; main_grad fp32 `[out, in]` is added to."""
        if inputs.dtype == main_grad.dtype:
            main_grad.addmm_(grad_output.t(), inputs)
        else:
            main_grad.add_(grad_output.t() @ inputs)

    module.fused_weight_gradient_mlp_cuda = SimpleNamespace(wgrad_gemm_accum_fp32=accumulate)  # type: ignore[attr-defined]
    module._grad_accum_fusion_available = True  # type: ignore[attr-defined]


def _lean_rotary_embedding(module: ModuleType) -> None:
    """megatron.core.models.common.embeddings.rope_utils (CPU): upstream's formula writes each query and key seven times."""
    upstream = module._apply_rotary_pos_emb_bshd

    @functools.wraps(upstream)
    def apply(t: Any, freqs: Any, rotary_interleaved: bool = False, multi_latent_attention: bool = False, mscale: float = 1.0) -> Any:
        from nemo_ext.layers.elementwise import Rotary

        if rotary_interleaved or multi_latent_attention or freqs.size(-1) != t.size(-1):
            return upstream(t, freqs, rotary_interleaved, multi_latent_attention, mscale)
        angles = freqs.chunk(2, dim=-1)[0]  # both halves are the same
        return Rotary.apply(t, (angles.cos() * mscale).to(t.dtype), (angles.sin() * mscale).to(t.dtype))

    module._apply_rotary_pos_emb_bshd = apply  # type: ignore[attr-defined]


# module -> (repair, whether it is for the CPU alone)
REPAIRS: dict[str, tuple[Callable[[ModuleType], None], bool]] = {
    "megatron.core.tensor_parallel.random": (_cpu_random_states, True),
    "megatron.core.dist_checkpointing.strategies.filesystem_async": (_cpu_checkpoint_writer, True),
    "megatron.core.distributed.param_and_grad_buffer": (_no_exchange_with_oneself, True),
    "megatron.core.tensor_parallel.layers": (_weight_gradients_in_place, True),
    "megatron.core.models.common.embeddings.rope_utils": (_lean_rotary_embedding, True),
    "megatron.core.optimizer.distrib_optimizer": (_torch_adam_in_distributed_optimizer, False),
}


def apply(module: ModuleType, cpu: bool) -> None:
    """Repair a module that was just imported, if there is a repair for it on this device."""
    repair, cpu_only = REPAIRS.get(module.__name__, (None, False))
    if repair is not None and (cpu or not cpu_only):
        repair(module)
