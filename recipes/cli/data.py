"""`sibol data`: puts its commands together, one file per group of them."""

from __future__ import annotations

import typer

from recipes.cli import data_corpus, data_download, data_inspect, data_prepare

app = typer.Typer(help="Turn text into datasets and look into them.", no_args_is_help=True)
app.command("prepare")(data_prepare.prepare)
app.command("merge")(data_prepare.merge)
app.command("inspect")(data_inspect.inspect)
app.command("chunk")(data_corpus.chunk)
app.command("split")(data_corpus.split)
app.command("dedup")(data_corpus.dedup)
app.command("download")(data_download.download)
