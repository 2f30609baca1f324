"""The `sibol` command: puts the verbs together, and turns user errors into one message without a traceback."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from nemo_ext.common.errors import SibolError
from recipes.cli import (
    bench,
    data,
    demo,
    doctor,
    evaluate,
    export,
    import_model,
    jobs,
    plan,
    report,
    show,
    slice,
    stage,
    submit,
    tokenizer,
    train,
)

app = typer.Typer(
    name="sibol",
    help="From raw text to an evaluated Hugging Face model on NeMo and Megatron, on GPUs or on a CPU.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("recipes")(show.recipes)
app.command("show")(show.show)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.command("plan")(plan.plan)
app.command("train")(train.train)
app.command("import")(import_model.import_model)
app.command("export")(export.export)
app.command("slice")(slice.slice_model)
app.add_typer(evaluate.app, name="evaluate")
app.command("compare")(report.compare)
app.command("report")(report.report)
app.command("demo")(demo.demo)
app.command("submit")(submit.submit)
app.command("jobs")(jobs.jobs)
app.command("stage")(stage.stage)
app.add_typer(bench.app, name="bench")
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"sibol {version('sibol')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")] = False,
) -> None:
    del version


def main() -> None:
    """Entry point of the console script."""
    # torch warns of it on every import, and no user of this program chose that package
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated")
    try:
        app()
    except SibolError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
