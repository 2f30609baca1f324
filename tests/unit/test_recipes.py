"""Every recipe is built offline, up to the family's Hugging Face config, and unknown ones name the nearest."""

from __future__ import annotations

import pytest

from nemo_ext.common.errors import ConfigError
from nemo_ext.config import apply_overrides, check_architecture, check_run, data_parallel_size
from nemo_ext.models.family import FAMILIES
from recipes import RECIPES, describe, load_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_offline_and_fits_its_layout(name: str) -> None:
    config = apply_overrides(load_recipe(name), ["data.path=dataset"])
    ranks = config.parallel.tp * config.parallel.pp * config.parallel.cp
    check_run(config, ranks)
    assert data_parallel_size(config, ranks) == 1
    family = FAMILIES.get(config.model.family)
    check_architecture(config, family.hf_config(config.model.preset, config.model.overrides))
    assert describe(name)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_do_not_share_state(name: str) -> None:
    load_recipe(name).train.max_steps = -1
    assert load_recipe(name).train.max_steps > 0


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Unknown recipe 'dmeo'. Did you mean 'demo'"):
        load_recipe("dmeo")
    with pytest.raises(ConfigError, match=r"cannot be loaded"):
        load_recipe("recipes.demo:absent")


def test_a_recipe_of_another_package_or_a_yaml_file_can_be_named(tmp_path: object) -> None:
    from pathlib import Path

    from nemo_ext.config import to_yaml

    assert load_recipe("recipes.demo:demo") == load_recipe("demo")
    path = Path(str(tmp_path)) / "run.yaml"
    path.write_text(to_yaml(load_recipe("demo")))
    assert load_recipe(str(path)) == load_recipe("demo")
