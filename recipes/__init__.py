"""What to run: each recipe is a function returning a RunConfig; a variant calls another and replaces fields.

A recipe is named by its key below, by `package.module:function`, or by the path of a run.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemo_ext.common.errors import ConfigError, nearest
from nemo_ext.common.registry import load_object

if TYPE_CHECKING:
    from nemo_ext.config import RunConfig

RECIPES = {
    "demo": "recipes.demo:demo",
    "course_10m": "recipes.course:course_10m",
    "course_30m": "recipes.course:course_30m",
    "course_100m": "recipes.course:course_100m",
    "stochastok_47m": "recipes.course:stochastok_47m",
    "continue_pretraining": "recipes.continue_pretraining:continue_pretraining",
    "survey_14b_pretraining": "recipes.continue_pretraining:survey_14b_pretraining",
    "early_modern_72b": "recipes.continue_pretraining:early_modern_72b",
    "early_modern_ner_72b": "recipes.studies:early_modern_ner_72b",
    "docket_base": "recipes.docket:docket_base",
    "docket_packed": "recipes.docket:docket_packed",
    "docket_sliced_10l": "recipes.docket:docket_sliced_10l",
    "docket_scratch_41m": "recipes.docket:docket_scratch_41m",
    "docket_scratch_27m": "recipes.docket:docket_scratch_27m",
    "docket_scratch_7m": "recipes.docket:docket_scratch_7m",
}


def load_recipe(name: str) -> RunConfig:
    """The settings of a recipe. Raises ConfigError, naming the nearest ones, when there is none of this name."""
    if name in RECIPES:
        return load_object(RECIPES[name])()
    if name.endswith((".yaml", ".yml")):
        from nemo_ext.config import from_yaml

        return from_yaml(Path(name))
    if ":" in name:
        try:
            return load_object(name)()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"Recipe {name!r} cannot be loaded: {error}. Expected package.module:function.") from None
    raise ConfigError(f"Unknown recipe {name!r}.{nearest(name, RECIPES)} `sibol recipes` lists all.")


def describe(name: str) -> str:
    """First line of a recipe's docstring."""
    return (load_object(RECIPES[name]).__doc__ or "").strip().partition("\n")[0]
