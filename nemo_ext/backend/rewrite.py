"""The rewriting rules: how a Megatron or NeMo module that asks for CUDA becomes one that runs on the CPU.

Works on syntax trees only; what the rewritten code calls is in `facade`. Every rule is a method or a table row with
its reason, and `count` tells how often each applied, so that tests can prove that none is dead.
"""

from __future__ import annotations

import ast
import collections

FACADE_NAME = "__sibol_cpu_cuda__"

_DEVICE_KEYWORDS = frozenset({"device", "device_type"})
# Callables whose first positional argument is a device: x.to("cuda"), torch.device("cuda", 0), torch.autocast("cuda").
_DEVICE_FIRST = frozenset({"to", "device", "autocast", "init_device_mesh"})
_TYPE_PREFIX, _TYPE_SUFFIX = "torch.cuda.", "Tensor"


def _is_torch(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "torch"


def _is_cuda(node: ast.AST | None) -> bool:
    """`"cuda"`, the only spelling that Megatron-Core 0.15.3 and NeMo 2.7.3 use for a device constant."""
    return isinstance(node, ast.Constant) and node.value == "cuda"


class CpuRewriter(ast.NodeTransformer):
    """Redirects uses of the CUDA device in one module's syntax tree. `count` maps each rule to its number of uses."""

    def __init__(self) -> None:
        self.count: collections.Counter[str] = collections.Counter()

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`torch.cuda` -> the facade: devices, streams, events, RNG, memory and nvtx have no CUDA to ask."""
        self.generic_visit(node)
        if node.attr == "cuda" and _is_torch(node.value):
            self.count["torch.cuda"] += 1
            return ast.copy_location(ast.Name(FACADE_NAME, node.ctx), node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """`'torch.cuda.FloatTensor'` -> `'torch.FloatTensor'`: optimizers sort parameters by these type strings."""
        value = node.value
        if isinstance(value, str) and value.startswith(_TYPE_PREFIX) and value.endswith(_TYPE_SUFFIX) and " " not in value:
            self.count["type string"] += 1
            return ast.copy_location(ast.Constant("torch." + value[len(_TYPE_PREFIX) :]), node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Calls that move to CUDA, name it as their device, or ask for memory pinned for it."""
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "cuda" and not _is_torch(function.value):
            return self._move(node, function)
        self._device_keywords(node)
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
        position = {"from_group": 1}.get(str(name), 0)  # DeviceMesh.from_group(group, "cuda")
        if (name in _DEVICE_FIRST or position) and len(node.args) > position and _is_cuda(node.args[position]):
            self.count["device argument"] += 1
            node.args[position] = ast.copy_location(ast.Constant("cpu"), node.args[position])
            if name == "device":  # torch.device("cuda", index): the CPU has no index
                node.args, node.keywords = node.args[:1], []
        self.generic_visit(node)
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        """`def f(device="cuda")` -> `def f(device="cpu")`."""
        self.generic_visit(node)
        positional = node.posonlyargs + node.args
        defaulted = list(zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True))
        for argument, default in [*defaulted, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]:
            if argument.arg in _DEVICE_KEYWORDS and _is_cuda(default):
                assert isinstance(default, ast.Constant)
                self.count["device default"] += 1
                default.value = "cpu"
        return node

    def _move(self, node: ast.Call, function: ast.Attribute) -> ast.AST:
        """`x.cuda(...)` -> facade.move(x): tensors, modules and generators stay where they are."""
        self.count["move"] += 1
        target = ast.Attribute(ast.Name(FACADE_NAME, ast.Load()), "move", ast.Load())
        moved = ast.Call(target, [self.visit(function.value)], [])
        return ast.fix_missing_locations(ast.copy_location(moved, node))

    def _device_keywords(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg in _DEVICE_KEYWORDS and _is_cuda(keyword.value):
                self.count["device keyword"] += 1
                keyword.value = ast.copy_location(ast.Constant("cpu"), keyword.value)
            elif keyword.arg == "pin_memory" and isinstance(node.func, ast.Attribute) and _is_torch(node.func.value):
                self.count["pin_memory"] += 1  # torch.tensor(..., pin_memory=True) needs a CUDA context
                keyword.value = ast.copy_location(ast.Constant(False), keyword.value)


def rewrite(source: bytes, filename: str) -> tuple[ast.Module, collections.Counter[str]]:
    """Syntax tree of `source` with CUDA redirected to the CPU, and how often each rule applied."""
    rewriter = CpuRewriter()
    tree = rewriter.visit(ast.parse(source, filename))
    return ast.fix_missing_locations(tree), rewriter.count
