"""Who may import whom: the packages keep their directions, and the checker that says so does see breaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.import_rules import PACKAGES, sources, violations

REPOSITORY = Path(__file__).resolve().parents[2]

LIGHT = ["nemo_ext.config", "nemo_ext.models.family", "nemo_ext.tasks.task", "recipes", "recipes.cli.main"]
HEAVY = ["torch", "numpy", "transformers", "megatron", "nemo", "lightning", "datasets", "matplotlib", "pandas"]


@pytest.mark.parametrize("package", [name for name in PACKAGES if (REPOSITORY / name).is_dir()])
def test_package_imports_only_what_it_may(package: str):
    modules = [(module, source) for module, source in sources(REPOSITORY) if module.partition(".")[0] == package]
    found = [line for module, source in modules for line in violations(module, source)]
    assert modules
    assert not found, "\n" + "\n".join(found)


def test_configuration_recipes_and_command_line_load_without_heavy_packages():
    program = f"import sys, {', '.join(LIGHT)}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nemo_ext.common.files", "import yaml"),
        ("nemo_ext.common.files", "from nemo_ext.config import RunConfig"),
        ("nemo_ext.config.schema", "import torch"),
        ("nemo_ext.config.schema", "def late():\n    import numpy"),
        ("nemo_ext.config.schema", "from nemo_ext.engine import launch"),
        ("nemo_ext.models.qwen2.presets", "import torch"),
        ("nemo_ext.models.family", "from torch import Tensor"),
        ("nemo_ext.engine.train", "from evaluation import run"),
        ("nemo_ext.engine.train", "from data_tools.prepare import prepare"),
        ("nemo_ext.engine.train", "import recipes"),
        ("nemo_ext.engine.train", "import subprocess"),
        ("nemo_ext.engine.train", "from subprocess import Popen"),
        ("nemo_ext.engine.train", "from . import launch"),
        ("nemo_ext.engine.train", "from tests.support import ranks"),
        ("nemo_ext.tokenizers.vanilla", "import megatron.core"),
        ("data_tools.prepare", "from nemo_ext.engine.train import train"),
        ("data_tools.prepare", "from nemo_ext import engine"),
        ("data_tools.prepare", "from megatron.core.datasets import indexed_dataset"),
        ("evaluation.run", "def late():\n    import nemo.lightning"),
        ("evaluation.run", "import importlib\nimportlib.import_module('megatron.core')"),
        ("evaluation.run", "from nemo_ext.convert import export"),
        ("evaluation.run", "from nemo_ext.config import RunConfig"),
        ("evaluation.suites", "SUITES = {'bits': 'recipes.demo:demo'}"),
        ("jobs.submit", "import torch"),
        ("jobs.submit", "from nemo_ext.models.qwen2.model import spec"),
        ("jobs.submit", "from recipes import load_recipe"),
        ("recipes.course", "from tests.support import tiny_models"),
        ("nemo_ext.engine.train", "import torch\n\nfree = torch.cuda.mem_get_info()"),
        ("evaluation.loading", "from torch.cuda import is_available"),
    ],
)
def test_checker_sees_a_breach(module: str, source: str):
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nemo_ext.config.overrides", "import yaml\nfrom omegaconf import OmegaConf\nfrom nemo_ext.common.errors import ConfigError"),
        ("data_tools.encode", "import numpy\nfrom nemo_ext.tokenizers import TextTokenizer\nfrom nemo_ext.common import files"),
        ("evaluation.loading", "import torch, transformers\nfrom nemo_ext.common.errors import DataError"),
        ("jobs.plan", "import jinja2, subprocess\nfrom nemo_ext.models.qwen2.presets import PRESETS"),
        ("nemo_ext.engine.launch", "import subprocess"),
        ("nemo_ext.engine.train", "import torch\n# the amount is printed, nothing depends on it\nfree = torch.cuda.mem_get_info()"),
        ("nemo_ext.backend.device", "import torch\nfree = torch.cuda.mem_get_info()"),
        ("nemo_ext.common.files", "MESSAGE = 'expected package.module:function'"),
        ("recipes.demo", "from evaluation import run\nimport data_tools, nemo_ext.engine.train"),
    ],
)
def test_checker_lets_the_permitted_pass(module: str, source: str):
    assert violations(module, source) == []
