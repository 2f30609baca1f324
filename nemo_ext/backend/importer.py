"""The import hook: rewritten modules for the CPU, and repairs after import on any device.

Rewritten code is kept in Python's own cache folders under a tag of its own, so that a second process does not pay for
the rewriting; where those folders cannot be written (a read-only image) the code is rewritten again, which costs time
and nothing else.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import marshal
import os
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from nemo_ext.backend import repairs
from nemo_ext.backend.rewrite import FACADE_NAME, rewrite

# Only the modules that a training run reaches; anything else of NeMo keeps its CUDA calls and fails loudly.
SCOPE = ("megatron.core", "nemo.lightning", "nemo.collections.llm", "nemo.utils.callbacks", "nemo.utils.timers")

# Modules that cannot be imported without CUDA, replaced whole.
REPLACED = {
    # Compiles a CUDA extension when it is imported, and raises IndexError where there is a toolkit but no GPU.
    "megatron.core.inference.unified_memory": (
        "has_unified_memory = False\ndef create_unified_mempool():\n    raise RuntimeError('unified memory needs CUDA')\n"
    ),
}


def _cache_tag() -> str:
    """Tag of cached code: changes with the rules, so that old code is never taken for new."""
    rules = Path(__file__).with_name("rewrite.py").read_bytes()
    return "sibolcpu" + hashlib.sha256(rules + sys.version.encode()).hexdigest()[:12]


def in_scope(name: str) -> bool:
    """Whether a module of this name is rewritten on the CPU."""
    return any(name == scope or name.startswith(scope + ".") for scope in SCOPE)


class BackendLoader(importlib.machinery.SourceFileLoader):
    """Loads one module: rewritten when `cpu`, then repaired when there is a repair for it."""

    def __init__(self, name: str, path: str, cpu: bool, tag: str) -> None:
        super().__init__(name, path)
        self.cpu, self.tag = cpu, tag

    def exec_module(self, module: types.ModuleType) -> None:
        if self.cpu:
            from nemo_ext.backend.facade import CpuInPlaceOfCuda

            module.__dict__[FACADE_NAME] = CpuInPlaceOfCuda()
        super().exec_module(module)
        repairs.apply(module, self.cpu)

    def get_code(self, fullname: str) -> types.CodeType | None:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        if not self.cpu or (b"cuda" not in source and b"pin_memory" not in source):
            return super().get_code(fullname)
        cache = Path(importlib.util.cache_from_source(path, optimization=self.tag))
        key = hashlib.sha256(source).digest()
        with contextlib.suppress(OSError, ValueError, EOFError, TypeError):  # no cache, or a damaged one: rewrite again
            cached_key, code = marshal.loads(cache.read_bytes())
            if cached_key == key:
                return code
        tree, _ = rewrite(source, path)
        code = compile(tree, path, "exec", dont_inherit=True)
        with contextlib.suppress(OSError):  # the cache saves time only
            cache.parent.mkdir(parents=True, exist_ok=True)
            temporary = cache.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(marshal.dumps((key, code)))
            os.replace(temporary, cache)
        return code


class _ReplacedLoader(importlib.abc.InspectLoader):
    def get_source(self, fullname: str) -> str:
        return REPLACED[fullname]


class BackendFinder(importlib.abc.MetaPathFinder):
    """Finds the modules that need rewriting or repair and leaves all others to Python."""

    def __init__(self, cpu: bool) -> None:
        self.cpu = cpu
        self.tag = _cache_tag()

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None) -> ModuleSpec | None:
        if self.cpu and fullname in REPLACED:
            return ModuleSpec(fullname, _ReplacedLoader())
        if not (fullname in repairs.REPAIRS or (self.cpu and in_scope(fullname))):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = BackendLoader(spec.loader.name, spec.loader.path, self.cpu, self.tag)
        return spec


def count_rules(package_folders: Sequence[Path]) -> collections.Counter[str]:
    """How often each rewriting rule applies in the Python files below the given folders; for tests and `sibol doctor`."""
    total: collections.Counter[str] = collections.Counter()
    for folder in package_folders:
        for path in sorted(folder.rglob("*.py")):
            total += rewrite(path.read_bytes(), str(path))[1]
    return total
