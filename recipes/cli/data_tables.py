"""What `sibol data inspect` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_tools.inspection import with_boundaries
from recipes.cli.data_prepare import print_left_out

if TYPE_CHECKING:
    from nemo_ext.common.dataset import DatasetInfo

AFFIX_COUNT = "affix:"  # begins the names of such counts, see nemo_ext.tokenizers.patok
MOST_FREQUENT = 10
SHARES = {
    "expansion": "tokens more than vanilla",
    "documents_changed": "documents changed",
    "ids_changed": "ids that vanilla does not have there",
    "boundaries_added": "boundaries added",
    "boundaries_removed": "boundaries removed",
    "unsplittable": "vanilla tokens that cannot be split",
}


def print_summary(info: DatasetInfo, summary: dict[str, Any]) -> None:
    """Counts and lengths of every split."""
    counts = Table("split", "documents", "tokens", "bytes", "bytes/token")
    lengths = Table("tokens per document", *next(iter(summary["splits"].values()))["tokens_per_document"])
    for name, entry in summary["splits"].items():
        counts.add_row(name, *(f"{entry[key]:,}" for key in ("documents", "tokens", "bytes")), f"{entry['bytes_per_token']}")
        lengths.add_row(name, *(f"{value:,}" for value in entry["tokens_per_document"].values()))
    Console().print(counts, lengths)
    typer.echo(f"{info.path}: dataset {info.fingerprint[:12]}, tokenizer {info.tokenizer_fingerprint[:12]} with {info.vocab_size:,} tokens")
    print_left_out(summary)


def print_treatment(treatment: dict[str, Any]) -> None:
    """What the plugin did: shares of what changed, tokens per word, affixes, and the plugin's own counts."""
    console, compared, plugin = Console(), treatment["compared"], treatment["plugin"]
    settings = ", ".join(f"{key}={value}" for key, value in plugin["settings"].items())
    typer.echo(f"Treatment: {plugin['name']} {settings}".strip())
    table = Table("", "vanilla", "stored", "share")
    table.add_row("tokens", *(f"{treatment['tokens'][key]:,}" for key in ("before", "after")), "")
    for key in ("tokens_per_word", "bytes_per_token"):
        table.add_row(key.replace("_", " "), *(f"{treatment[key][side]}" for side in ("before", "after")), "")
    for key, label in SHARES.items():
        table.add_row(label, "", "", _percent(treatment[key]))
    console.print(table)
    if treatment["affixes"] is not None:
        console.print(_affix_table(treatment["affixes"]))
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in compared["left_out"].items())
    typer.echo(f"Compared {compared['count']:,} of {compared['of']:,} {compared['unit']}. Left out: {left_out or 'none'}.")
    _print_counts(treatment["counted_by_plugin"] or {})
    if treatment["documents_changed"] == 0 and plugin["name"] != "vanilla":
        console.print(Text("No document differs from vanilla: the treatment has left no trace.", style="bold red"))


def _print_counts(counts: dict[str, int]) -> None:
    """What the plugin itself counted; affixes by how often they were cut out, the most frequent only."""
    affixes = {name.removeprefix(AFFIX_COUNT): count for name, count in counts.items() if name.startswith(AFFIX_COUNT)}
    others = {name: count for name, count in counts.items() if not name.startswith(AFFIX_COUNT)}
    frequent = dict(sorted(affixes.items(), key=lambda entry: -entry[1])[:MOST_FREQUENT])
    for label, shown in (("Counted by the plugin", others), (f"Most frequent of {len(affixes)} affixes cut out", frequent)):
        if shown:
            typer.echo(f"{label}: " + ", ".join(f"{name} {count:,}" for name, count in shown.items()))


def _affix_table(affixes: dict[str, Any]) -> Table:
    table = Table("affix", "occurrences", "boundary at edge, vanilla", "stored", "cut within, vanilla", "stored")
    rows = [(f"all {kind}es", entry) for kind, entry in affixes["kinds"].items()]
    rows += [(f"{entry['kind']} {entry['affix']}", entry) for entry in affixes["most_frequent"]]
    for label, entry in rows:
        shares = [_percent(entry[key][side]) for key in ("boundary_at_edge", "cut_within") for side in ("before", "after")]
        table.add_row(label, f"{entry['occurrences']:,}", *shares)
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def print_sample(sample: dict[str, Any]) -> None:
    """The beginning of a document with visible boundaries; with a plugin, as the tokenizer alone cuts it and as it is stored."""
    shown, total = len(sample["pieces"]), sample["tokens"]
    heading = f"{sample['split']} document {sample['document']}, {'first ' + str(shown) + ' of ' if shown < total else ''}{total:,} tokens"
    lines = [Text(heading, style="bold")]
    if sample.get("vanilla_pieces") is not None:
        lines.append(Text("vanilla  ", style="dim") + Text(with_boundaries(sample["vanilla_pieces"])))
        lines.append(Text("stored   ", style="dim") + Text(with_boundaries(sample["pieces"])))
    else:
        lines.append(Text(with_boundaries(sample["pieces"])))
    Console().print(*lines, sep="\n")


def print_comparison(comparison: dict[str, Any]) -> None:
    """Two datasets of the same documents."""
    table = Table("", "baseline", "dataset")
    for key in ("path", "fingerprint"):
        table.add_row(key, *(str(comparison[side][key]) for side in ("baseline", "dataset")))
    table.add_row("plugin", *(comparison[side]["plugin"]["name"] for side in ("baseline", "dataset")))
    for name, entry in comparison["splits"].items():
        table.add_row(f"{name} tokens", *(f"{count:,}" for count in entry["tokens"]))
    console, compared = Console(), comparison["compared"]
    console.print(table)
    typer.echo(f"Same text in all {compared['count']:,} of {compared['of']:,} {compared['unit']} that were compared.")
    typer.echo(f"Tokens of the dataset to those of the baseline: {comparison['tokens_ratio']}")
    if not comparison["same_tokenizer"]:
        typer.echo("The tokenizers differ, so their ids cannot be compared.")
        return
    typer.echo(", ".join(f"{label} {_percent(comparison[key])}" for key, label in SHARES.items() if key in comparison))
    for difference in comparison["first_differences"]:
        console.print(Text(f"{difference['split']} document {difference['document']} from token {difference['token']}", style="bold"))
        for side in ("baseline", "dataset"):
            console.print(Text(f"{side:10}", style="dim") + Text(with_boundaries(difference[side])))
