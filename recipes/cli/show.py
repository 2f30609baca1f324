"""`sibol recipes` and `sibol show`: what there is to run, and every setting of it."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def complete_recipe(incomplete: str) -> list[str]:
    """Shell completion of a recipe's name."""
    from recipes import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


def complete_override(incomplete: str) -> list[str]:
    """Shell completion of a setting, up to its `=`."""
    from nemo_ext.config import RunConfig, known_keys

    return [f"{key}=" for key in known_keys(RunConfig()) if key.startswith(incomplete)]


RecipeName = Annotated[
    str, typer.Argument(help="Recipe name (see `sibol recipes`), package.module:function, or a run.yaml.", autocompletion=complete_recipe)
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  typer reads this at run time
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as train.max_steps=100.", autocompletion=complete_override),
]


def recipes() -> None:
    """List the recipes."""
    from rich.console import Console
    from rich.table import Table

    from recipes import RECIPES, describe

    table = Table("recipe", "what it is", box=None)
    for name in RECIPES:
        table.add_row(name, describe(name))
    Console().print(table)


def show(
    recipe: RecipeName,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each setting means instead of printing YAML.")] = False,
) -> None:
    """Print a recipe's resolved settings as YAML, or explain them."""
    from nemo_ext.config import apply_overrides, to_yaml
    from recipes import load_recipe

    config = apply_overrides(load_recipe(recipe), overrides or [])
    if not explain:
        typer.echo(to_yaml(config), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    from nemo_ext.config.schema import explain_settings

    table = Table("setting", "value", "meaning", box=None)
    for key, value, meaning in explain_settings(config):
        table.add_row(key, str(value), meaning)
    Console().print(table)
