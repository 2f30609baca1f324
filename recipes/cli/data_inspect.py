"""`sibol data inspect`: what is in a dataset, what its plugin did, and how it differs from another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nemo_ext.common.dataset import DatasetInfo


def inspect(
    path: Annotated[Path, typer.Argument(help="dataset folder written by `sibol data prepare`", metavar="DIR")],
    samples: Annotated[int, typer.Option(help="documents to show with visible token boundaries", min=0)] = 0,
    split: Annotated[str, typer.Option(help="split to take samples from")] = "train",
    plot: Annotated[Path | None, typer.Option(help="draw document lengths and treatment (.png, .svg, .pdf)", metavar="FILE")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="read every byte and compare digests, not only sizes")] = False,
    treatment: Annotated[
        bool | None,
        typer.Option("--treatment/--no-treatment", help="compare with the tokenizer's own ids (default: if there is a plugin)"),
    ] = None,
    against: Annotated[Path | None, typer.Option(help="compare with this dataset of the same documents, too", metavar="DIR")] = None,
    documents: Annotated[int, typer.Option(help="documents of every split to compare", min=1)] = 2000,
    full: Annotated[bool, typer.Option("--full", help="compare all documents")] = False,
    affixes: Annotated[
        str | None, typer.Option(help="language or YAML file whose affixes to look for (default: the plugin's)", metavar="NAME")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Show counts and lengths of a dataset, what its plugin did to the tokens, and samples as the model will see them."""
    from nemo_ext.common.dataset import open_dataset

    info, most_documents = open_dataset(path, verify_contents=verify), None if full else documents
    from data_tools.inspection import has_treatment, sample_documents, summarize

    report = summarize(info)
    if against is not None:
        report["against"] = _comparison(open_dataset(against, verify_contents=verify), info, most_documents)
    if treatment if treatment is not None else has_treatment(info):
        report["treatment"] = _treatment(info, affixes, most_documents)
    report["samples"] = sample_documents(info, split, samples) if samples else []
    if plot is not None:
        from data_tools.inspection_plot import plot_dataset

        plot_dataset(info, report.get("treatment"), plot)
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print_report(info, report)
        if plot is not None:
            typer.echo(f"Wrote {plot}")


def _treatment(info: DatasetInfo, affixes: str | None, most_documents: int | None) -> dict[str, Any]:
    from data_tools.affix_lists import affixes_of_plugin, read_affixes
    from data_tools.treatment import describe_treatment

    source = affixes or affixes_of_plugin(info.manifest["plugin"])
    with _documents_bar() as on_documents:
        return describe_treatment(info, read_affixes(source) if source is not None else None, most_documents, on_documents)


def _comparison(baseline: DatasetInfo, dataset: DatasetInfo, most_documents: int | None) -> dict[str, Any]:
    from data_tools.against import compare_datasets

    with _documents_bar() as on_documents:
        return compare_datasets(baseline, dataset, most_documents, on_documents)


def _print_report(info: DatasetInfo, report: dict[str, Any]) -> None:
    from recipes.cli.data_tables import print_comparison, print_sample, print_summary, print_treatment

    if "against" in report:
        print_comparison(report["against"])
    print_summary(info, report)
    if "treatment" in report:
        print_treatment(report["treatment"])
    for sample in report["samples"]:
        print_sample(sample)


@contextmanager
def _documents_bar() -> Iterator[Callable[[int, int], None]]:
    """Documents compared so far, on stderr; nothing when that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("documents compared"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("documents", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
