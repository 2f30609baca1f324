"""Each rewriting rule does what its reason says, and code that does not ask for CUDA is left as it is."""

from __future__ import annotations

import ast
import sys

import pytest

from nemo_ext import backend
from nemo_ext.backend import importer, repairs
from nemo_ext.backend.importer import BackendFinder, in_scope
from nemo_ext.backend.rewrite import FACADE_NAME, rewrite
from nemo_ext.common.errors import VersionError


@pytest.mark.parametrize(
    ("source", "expected", "rule"),
    [
        ("torch.cuda.current_device()", f"{FACADE_NAME}.current_device()", "torch.cuda"),
        ("t = 'torch.cuda.HalfTensor'", "t = 'torch.HalfTensor'", "type string"),
        ("x.cuda(non_blocking=True)", f"{FACADE_NAME}.move(x)", "move"),
        ("torch.empty(3, device='cuda')", "torch.empty(3, device='cpu')", "device keyword"),
        ("torch.autocast(device_type='cuda')", "torch.autocast(device_type='cpu')", "device keyword"),
        ("x.to('cuda', non_blocking=True)", "x.to('cpu', non_blocking=True)", "device argument"),
        ("torch.device('cuda', index)", "torch.device('cpu')", "device argument"),
        ("DeviceMesh.from_group(group, 'cuda')", "DeviceMesh.from_group(group, 'cpu')", "device argument"),
        ("torch.tensor(x, pin_memory=True)", "torch.tensor(x, pin_memory=False)", "pin_memory"),
        ("def f(a, device='cuda'):\n    pass", "def f(a, device='cpu'):\n    pass", "device default"),
        ("def f(a, *, device='cuda'):\n    pass", "def f(a, *, device='cpu'):\n    pass", "device default"),
    ],
)
def test_a_use_of_cuda_goes_to_the_cpu(source: str, expected: str, rule: str) -> None:
    tree, count = rewrite(source.encode(), "module.py")
    assert ast.unparse(tree) == expected
    assert count == {rule: 1}


@pytest.mark.parametrize(
    "source",
    [
        "print('cuda')",
        "DataLoader(d, pin_memory=True)",
        "config.device = 'cuda'",
        "x.to(device)",
        "def f(device, kind='cuda'):\n    pass",
        "s = 'torch.cuda is absent'",
    ],
)
def test_what_is_no_use_of_the_device_is_left_alone(source: str) -> None:
    tree, count = rewrite(source.encode(), "module.py")
    assert ast.unparse(tree) == source
    assert not count


def test_nested_uses_are_all_rewritten() -> None:
    tree, count = rewrite(b"a.to('cuda').cuda(torch.cuda.current_device())", "module.py")
    assert ast.unparse(tree) == f"{FACADE_NAME}.move(a.to('cpu'))"
    assert count["move"] == count["device argument"] == 1


def test_only_the_modules_of_a_training_run_are_in_scope() -> None:
    assert in_scope("megatron.core") and in_scope("megatron.core.optimizer.distrib_optimizer") and in_scope("nemo.lightning.io")
    assert not in_scope("megatron.corelib") and not in_scope("nemo.collections.asr") and not in_scope("torch")


def test_with_cuda_no_module_is_rewritten_and_only_repairs_of_any_device_apply() -> None:
    finder = BackendFinder(cpu=False)
    assert finder.find_spec("megatron.core.parallel_state") is None
    assert finder.find_spec("megatron.core.inference.unified_memory") is None
    assert {name for name, (_, cpu_only) in repairs.REPAIRS.items() if not cpu_only} == {"megatron.core.optimizer.distrib_optimizer"}


def test_other_versions_are_refused_with_the_one_that_was_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "version", lambda name: {"megatron-core": "0.16.0"}.get(name, "2.7.3"))
    with pytest.raises(VersionError, match=r"megatron-core 0\.16\.0 is installed, but .* validated for 0\.15\.3 only"):
        backend.check_versions()


def test_installing_after_megatron_was_imported_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not isinstance(finder, BackendFinder)])
    monkeypatch.setitem(sys.modules, "megatron.core.fake", importer)
    with pytest.raises(AssertionError, match=r"must run before .* is imported"):
        backend.install()
