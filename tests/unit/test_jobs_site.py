"""Sites: facts that are read strictly, laid over one another, and the same ones the studies were planned with."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.site import format_walltime, load_site, parse_walltime, site_names
from nemo_ext.common.errors import ConfigError


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", site_names())
def test_every_site_is_valid_and_says_where_its_facts_stand(name: str) -> None:
    site = load_site(name)
    assert site.name == name and site.description and site.source
    assert site.scheduler == "none" or (site.node.cores and site.node.memory_gib and site.node.gpus)
    assert not site.node.gpus or (site.node.gpu_memory_gib and site.node.gpu_peak_bf16_tflops)


def test_the_alliance_clusters_differ_in_what_their_documentation_says() -> None:
    nibi, narval = load_site("nibi"), load_site("narval")
    assert (nibi.node.gpus, nibi.node.cores, nibi.node.memory_gib, nibi.internet) == (8, 112, 2000, True)
    assert (narval.node.gpus, narval.node.gpu_model, narval.node.gpu_memory_gib, narval.internet) == (4, "a100", 40, False)
    assert narval.account == nibi.account and narval.longest_walltime_s == 7 * 24 * 3600


def test_a_file_of_ones_own_holds_only_what_differs(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, "based_on: nibi\nimage: /images/mine.sif\nnode: {count: 3}\n"))
    assert (site.name, site.image, site.node.count, site.node.gpus) == ("mine", "/images/mine.sif", 3, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedular: slurm", "schedular"),
        ("node: {gpu: 8}", "gpu"),
        ("node: {gpus: eight}", "eight"),
        ("scheduler: lsf", "scheduler=lsf is not known. Choose one of: slurm, pbs, none"),
        ("limits: {walltime: 24}", "Walltime '24' is not understood"),
        ("based_on: nibbi", "Site file"),
        ("based_on: mine.yaml", "is based on itself"),
        ("- slurm", "holds no settings"),
        ("a: [", "is not valid"),
        ("scheduler: slurm\nnode: {gpus: 2}", "gpu_request='' must hold {model} and {count}"),
        ("account: {pattern: '('}", "mine.yaml"),
        ("node: {gpus: -1}", "node.gpus=-1 is too small"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_site(write(tmp_path, text))
    assert message in str(caught.value)


def test_an_unknown_site_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Unknown site 'niby'. Did you mean 'nibi'"):
        load_site("niby")


@pytest.mark.parametrize(("text", "seconds"), [("1:02:03", 3723), ("168:00:00", 604800), ("2-03:00:00", 183600), ("0:00:30", 30)])
def test_walltimes_are_hours_minutes_seconds(text: str, seconds: int) -> None:
    assert parse_walltime(text) == seconds
    assert parse_walltime(format_walltime(seconds)) == seconds


@pytest.mark.parametrize("text", ["24", "24:00", "1:60:00", "1:00:60", "1-24:00:00", "", "1h", "-1:00:00", "1:00:00\n"])
def test_other_walltimes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not understood"):
        parse_walltime(text)
