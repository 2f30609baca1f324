"""Prove that a Megatron checkpoint and a Hugging Face folder compute the same, by a path that shares nothing with the conversion.

The checkpoint is loaded by Megatron's own loader into Megatron's model, the folder by transformers into its model, both in fp32, and
their logits for the same tokens are compared. A wrong split, a forgotten tensor or another rotary base shows here,
even if the mapping table is wrong in both directions. Runs in a child process on the CPU, so that Megatron's globals stay there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.common.errors import ConversionError
from nemo_ext.common.files import write_json
from nemo_ext.common.hf_config import with_common_names
from nemo_ext.common.memory import available_memory_bytes
from nemo_ext.convert.rules import Table, layer_count
from nemo_ext.models.family import family_of

if TYPE_CHECKING:
    import torch

VERIFY_SCHEMA = "sibol.verify/1"
TOLERANCE = 1e-4  # of fp32 logits; what correct conversions show is below 1e-5
SEED = 20240
LIBRARIES_BYTES = 2**30  # what torch, Megatron and transformers themselves take in the process that compares
BATCH, LONGEST = 2, 64  # tokens enough to reach every position-dependent part, few enough to take a second

AUTO_CLASSES = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}  # by ModelFamily.objective


def verify(weights_dir: Path | str, hf_dir: Path | str, hf_config: Mapping[str, Any], dtype: str, record: Path) -> dict[str, Any]:
    """Compare the logits of a Megatron checkpoint and of the Hugging Face folder that it came from or became; writes `record`.

    hf_config: config.json of the language model. dtype: torch's name of the dtype that the weights were converted to; both
    models' are rounded to it before both are computed in fp32. Memory: one model in fp32. Returns the figures.
    Raises ConversionError, with the figures, when the largest absolute difference exceeds 1e-4.
    """
    result = _in_child(Path(weights_dir), Path(hf_dir), dict(hf_config), dtype)
    if not result["max_abs_difference"] <= TOLERANCE:  # written so that NaN fails
        raise ConversionError(
            "The converted model computes other logits than the original: largest difference "
            f"{result['max_abs_difference']:.3g}, allowed {TOLERANCE:g}, same most likely token at {result['argmax_agreement']:.1%} of "
            f"{result['tokens']} positions. Nothing was published. The mapping table or config.json does not describe this model."
        )
    write_json(record, result)
    return result


def verify_unless_too_large(
    weights_dir: Path | str, hf_dir: Path | str, hf_config: Mapping[str, Any], dtype: str, record: Path, insist: bool
) -> dict[str, Any]:
    """`verify`, or under "skipped" why not: one model in fp32 and half as much again must fit into memory, unless `insist`."""
    rules = family_of(hf_config).build_mapping(hf_config)
    parameters = sum(prod(shape) for shape in Table(rules, layer_count(hf_config)).hf_shapes.values())
    needed_bytes, available_bytes = 6 * parameters + LIBRARIES_BYTES, available_memory_bytes()
    if insist or needed_bytes <= available_bytes:
        return verify(weights_dir, hf_dir, hf_config, dtype, record)
    reason = (
        f"comparing logits takes about {needed_bytes / 2**30:,.1f} GiB of memory and {available_bytes / 2**30:,.1f} GiB are available; "
        "--verify insists on it"
    )
    skipped = {"schema": VERIFY_SCHEMA, "skipped": reason}
    write_json(record, skipped)
    return skipped


def _in_child(*job: Any) -> dict[str, Any]:
    """The figures of `_compare`, computed in a child process. Raises ConversionError when it fails or dies."""
    import torch

    # Forking from a clean helper process is enough on the CPU; where a GPU is visible, the child must start afresh to hide it.
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
    reader, writer = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile(prefix="sibol-verify-", suffix=".log") as log:
        child = context.Process(  # type: ignore[attr-defined]
            target=_child, args=(job, writer, log.name), daemon=True
        )
        child.start()
        writer.close()
        try:
            succeeded, result = reader.recv()
        except EOFError:
            child.join()
            last_words = Path(log.name).read_text(errors="replace")[-2000:]
            raise ConversionError(
                f"The verification process died (exit code {child.exitcode}; -9 means lack of memory: it holds the model in fp32). "
                f"Nothing was published. Use a machine with more memory, or --no-verify. Its last words: {last_words}"
            ) from None
        child.join()
    if not succeeded:
        raise ConversionError(f"The conversion could not be verified, and nothing was published: {result}")
    return result


def _child(job: tuple[Any, ...], writer: Connection, log: str) -> None:
    """Body of the child process: sends `(True, figures)` or `(False, what went wrong)`. What libraries print goes into `log`."""
    with open(log, "w") as handle:
        sys.stdout.flush()
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from nemo_ext import backend

    backend.install()
    import torch
    from megatron.core.dist_checkpointing.core import CheckpointingException

    from nemo_ext.common.errors import SibolError

    checkpoint_errors = (CheckpointingException, torch.distributed.checkpoint.CheckpointException)
    try:
        writer.send((True, _compare(*job)))
    except (SibolError, *checkpoint_errors, OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).strip().splitlines() or ["no reason given"]  # torch puts whole tracebacks into the text, cause last
        writer.send((False, f"{type(error).__name__}: {reason[-1]}"))
    finally:
        writer.close()


def _compare(weights_dir: Path, hf_dir: Path, hf_config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    import torch

    tokens, rounded_to = _tokens(hf_config), getattr(torch, dtype)
    with torch.no_grad():
        expected = megatron_logits(weights_dir, hf_config, tokens, rounded_to)
        found = hugging_face_logits(hf_dir, hf_config, tokens, rounded_to)
    return {
        "schema": VERIFY_SCHEMA,
        "max_abs_difference": float((found - expected).abs().max()),
        "tolerance": TOLERANCE,
        "argmax_agreement": float((found.argmax(-1) == expected.argmax(-1)).float().mean()),
        "largest_logit": float(expected.abs().max()),
        "tokens": tokens.numel(),
        "seed": SEED,
        "weights_rounded_to": dtype,
        "computed_in": "float32",
    }


def _tokens(hf_config: Mapping[str, Any]) -> torch.Tensor:
    """The same random tokens every time, `[2, up to 64]` int64, or `[1, some more than a window]` where layers have one."""
    import torch

    window = hf_config.get("local_attention")  # ModernBERT's; the other name counts only where layers use it
    if "sliding_attention" in hf_config.get("layer_types", ()):
        window = hf_config.get("sliding_window")
    batch, wanted = (1, window + 8) if window else (BATCH, LONGEST)
    length = min(wanted, with_common_names(hf_config).get("max_position_embeddings") or wanted)
    return torch.randint(hf_config["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(SEED))


def hugging_face_logits(hf_dir: Path, hf_config: Mapping[str, Any], tokens: torch.Tensor, rounded_to: torch.dtype) -> torch.Tensor:
    """Logits `[batch, seq, vocab]` fp32 of a Hugging Face folder, as transformers loads it, with its weights rounded."""
    import torch
    import transformers

    auto_class = getattr(transformers, AUTO_CLASSES[family_of(hf_config).objective])
    model = auto_class.from_pretrained(hf_dir, dtype=torch.float32, attn_implementation="eager", local_files_only=True)
    _round_parameters(model, rounded_to)
    return model.eval()(tokens).logits


def megatron_logits(weights_dir: Path, hf_config: Mapping[str, Any], tokens: torch.Tensor, rounded_to: torch.dtype) -> torch.Tensor:
    """Logits `[batch, seq, vocab]` fp32 of a checkpoint in Megatron's own model on one rank, loaded by Megatron's own loader.

    Initialises torch.distributed and Megatron's parallel state, so it belongs into a process of its own.
    """
    import torch
    from megatron.core import parallel_state

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    config = family_of(hf_config).build_megatron_config(
        hf_config,
        params_dtype=torch.float32,
        layer_spec="local",
        use_cpu_initialization=True,
        hetereogenous_dist_checkpoint=_stores_layers_apart(weights_dir),
        weight_loader=_fill_with_nan,
    )
    model = config.configure_model(tokenizer=None).eval()
    _load(model, weights_dir)
    _round_parameters(model, rounded_to)
    positions = torch.arange(tokens.shape[1]).expand_as(tokens)
    logits = model(input_ids=tokens, position_ids=positions, attention_mask=None)
    return logits[..., : hf_config["vocab_size"]].clone()


def _round_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Round the weights and nothing else: buffers, such as Gemma's embedding scale, follow from the config in fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()


def _fill_with_nan(model: torch.nn.Module) -> None:
    """So that a weight that is not loaded cannot pass for one that is."""
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))


def _stores_layers_apart(weights_dir: Path) -> bool:
    from torch.distributed.checkpoint import FileSystemReader

    return any(".layers.0." in key for key in FileSystemReader(weights_dir).read_metadata().state_dict_metadata)


def _load(model: Any, weights_dir: Path) -> None:
    """Fill the model by Megatron's loader; extra state, empty here and absent in some checkpoints, is not asked for."""
    from megatron.core import dist_checkpointing

    prefix = "module."
    wanted = {key: value for key, value in model.sharded_state_dict(prefix=prefix).items() if "_extra_state" not in key}
    loaded = dist_checkpointing.load(wanted, str(weights_dir))
    state = {key.removeprefix(prefix): value for key, value in loaded.items() if key.startswith(prefix)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(key.endswith("_extra_state") for key in missing), missing
