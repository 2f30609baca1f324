"""Device backend: Megatron-Core and NeMo run unchanged on CPU and gloo, and exactly as shipped where CUDA works.

`install()` is called once, before Megatron or NeMo is imported. Without CUDA it compiles their modules from a rewritten
syntax tree in which every use of the CUDA device goes to the CPU (`rewrite`, `facade`); torch and the installed files
stay untouched, so there is nothing to pay at run time. With CUDA nothing is rewritten; `repairs` that mend defects of
any device still apply. What is redirected, and why, is written beside each rule.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from nemo_ext.common.errors import VersionError

VALIDATED = {"megatron-core": "0.15.3", "nemo_toolkit": "2.7.3"}
_PACKAGES = ("megatron.core", "nemo")


def check_versions() -> None:
    """Raise VersionError unless Megatron-Core and NeMo are the versions whose sources the rewriting was validated on."""
    for package, wanted in VALIDATED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            raise VersionError(f"{package} is not installed; version {wanted} is needed. Run `make install`.") from None
        if found != wanted:
            raise VersionError(
                f"{package} {found} is installed, but this code was validated for {wanted} only. "
                f"Install it with: pip install '{package}=={wanted}', or run `make install`."
            )


def on_cpu() -> bool:
    """Whether training runs on the CPU, that is, whether torch sees no CUDA device."""
    import torch

    return not torch.cuda.is_available()


def install() -> bool:
    """Prepare this process for Megatron and NeMo; returns True when they will run on the CPU. Repeated calls do nothing.

    Raises VersionError for versions that were not validated, AssertionError when Megatron or NeMo was imported before.
    """
    from nemo_ext.backend.importer import BackendFinder

    for finder in sys.meta_path:
        if isinstance(finder, BackendFinder):
            return finder.cpu
    check_versions()
    early = [name for name in sys.modules if name.startswith(tuple(f"{package}." for package in _PACKAGES))]
    assert not early, f"backend.install() must run before {early[0]} is imported"
    cpu = on_cpu()
    if cpu:
        from nemo_ext.backend.environment import prepare_cpu_process

        prepare_cpu_process()
    sys.meta_path.insert(0, BackendFinder(cpu=cpu))
    return cpu
