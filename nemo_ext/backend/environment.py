"""Settings of a CPU process that NeMo and its libraries read from the environment or from NumPy."""

from __future__ import annotations

import os


def prepare_cpu_process() -> None:
    """Set what must hold before the first import of Megatron on a CPU; a value that the user set is kept."""
    import numpy

    # Triton and Transformer Engine probe for a device at import; there is none to find.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    # NeMo warns on every start about telemetry it cannot set up without a configuration.
    os.environ.setdefault("ONE_LOGGER_ENABLED", "false")
    # Ranks of one machine talk over loopback; gloo otherwise resolves the host name, which may not resolve.
    if os.environ.get("MASTER_ADDR", "127.0.0.1") in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Megatron-Core 0.15.3 calls np.product, which NumPy 2 removed.
    if not hasattr(numpy, "product"):
        numpy.product = numpy.prod  # type: ignore[attr-defined]
