"""Who may import whom, as data, and a checker of one file's syntax tree against it.

Imports count wherever they stand: in functions, under `TYPE_CHECKING`, in `importlib.import_module("...")` and in the lazy
`"package.module:object"` references of registries, which are imports put off.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("nemo_ext", "data_tools", "evaluation", "recipes", "jobs")
STANDARD = frozenset(sys.stdlib_module_names)
TRAINER = ("megatron", "nemo", "nemo_run", "lightning", "pytorch_lightning", "modelopt", "transformer_engine")
LAZY_REFERENCE = re.compile(r"^[a-z_][\w]*(\.[a-z_]\w*)*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Rule:
    """What the modules below `scope` may import. `own`: our modules. `others`: third-party packages, None for any but `never`."""

    scope: str
    own: tuple[str, ...]
    others: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


# The first rule whose scope covers a module holds for it, so exceptions stand before what they are excepted from.
RULES = (
    Rule("nemo_ext.common", own=("nemo_ext.common",), others=()),
    Rule("nemo_ext.config", own=("nemo_ext.common", "nemo_ext.config", "nemo_ext.models.family"), others=("yaml", "omegaconf")),
    Rule("nemo_ext.models.family", own=("nemo_ext.common", "nemo_ext.config", "nemo_ext.models.*.presets"), others=("yaml", "omegaconf")),
    Rule("nemo_ext.models.*.presets", own=("nemo_ext.common", "nemo_ext.config", "nemo_ext.models"), others=()),
    Rule("nemo_ext.tasks.task", own=("nemo_ext.common", "nemo_ext.config", "nemo_ext.tasks"), others=()),
    Rule("nemo_ext.tokenizers", own=("nemo_ext.common", "nemo_ext.config", "nemo_ext.tokenizers"), never=TRAINER),
    Rule("nemo_ext", own=("nemo_ext",)),
    Rule("data_tools", own=("data_tools", "nemo_ext.common", "nemo_ext.config", "nemo_ext.tokenizers"), never=TRAINER),
    Rule("evaluation", own=("evaluation", "nemo_ext.common"), never=TRAINER),
    Rule(
        "jobs",
        own=("jobs", "nemo_ext.common", "nemo_ext.config", "nemo_ext.models.family", "nemo_ext.models.*.presets", "nemo_ext.tasks.task"),
        others=("yaml", "omegaconf", "jinja2"),
    ),
    Rule("recipes", own=PACKAGES),
)

# Processes are started by these alone: the ranks of a run, two ranks that test the machine, and job submission.
MAY_USE_SUBPROCESS = ("nemo_ext.engine.launch", "nemo_ext.engine.rank_check", "jobs")
MAY_USE_CUDA = ("nemo_ext.backend",)


def covers(pattern: str, module: str) -> bool:
    """Whether `module` is `pattern` or lies below it; `*` stands for one name."""
    wanted, found = pattern.split("."), module.split(".")
    return len(found) >= len(wanted) and all(name in ("*", other) for name, other in zip(wanted, found, strict=False))


def any_covers(patterns: tuple[str, ...], module: str) -> bool:
    return any(covers(pattern, module) for pattern in patterns)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that `tree` imports, by statement, by call or by lazy reference."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module or '.'}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and LAZY_REFERENCE.match(node.value):
            target = node.value.partition(":")[0]
            if target.partition(".")[0] in PACKAGES:
                yield node.lineno, target


def import_violations(module: str, tree: ast.AST) -> Iterator[str]:
    rule = next(rule for rule in RULES if covers(rule.scope, module))
    for line, name in imports(tree):
        top = name.partition(".")[0]
        if name.startswith("."):
            yield f"{module}:{line} imports relatively; write the full name"
        elif top in PACKAGES or top == "tests":
            if not any_covers(rule.own, name):
                yield f"{module}:{line} imports {name}; {rule.scope} may import only {', '.join(rule.own)} of ours"
        elif top in rule.never or (rule.others is not None and top not in STANDARD and top not in rule.others):
            yield f"{module}:{line} imports {name}, which {rule.scope} must do without"
        elif top == "subprocess" and not any_covers(MAY_USE_SUBPROCESS, module):
            yield f"{module}:{line} imports subprocess; only {', '.join(MAY_USE_SUBPROCESS)} start processes"


def cuda_violations(module: str, tree: ast.AST, source: str) -> Iterator[str]:
    """Uses of `torch.cuda` with no comment on their line or the one before to say why the backend cannot be asked."""
    if any_covers(MAY_USE_CUDA, module):
        return
    lines = ["", *source.splitlines()]
    names = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.cuda"}
    names |= {line for line, name in imports(tree) if covers("torch.cuda", name)}
    for line in sorted(names):
        if "#" not in lines[line] and "#" not in lines[line - 1]:
            yield f"{module}:{line} uses torch.cuda; ask nemo_ext.backend, or say why not in a comment"


def violations(module: str, source: str) -> list[str]:
    """Every breach of the rules in the source of `module`, as messages that name the line."""
    tree = ast.parse(source)
    return [*import_violations(module, tree), *cuda_violations(module, tree, source)]


def sources(root: Path) -> Iterator[tuple[str, str]]:
    """(dotted name, source) of every module of the packages below `root`."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path.read_text(encoding="utf-8")
