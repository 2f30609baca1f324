"""The images that ours are built from: pinned once, read the same by the shell, and not overwritten by our lock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.stand_ins import REPOSITORY, Cluster

CONTAINERS = REPOSITORY / "containers"
IMAGES = yaml.safe_load((CONTAINERS / "images.yaml").read_text(encoding="utf-8"))
BUILD = CONTAINERS / "build.sh"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.mark.parametrize("name", IMAGES["images"])
def test_every_image_is_pinned_by_digest_and_says_which_driver_it_needs(name: str) -> None:
    image = IMAGES["images"][name]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"])
    assert re.fullmatch(r"\d\d\.\d\d-py3", image["tag"])
    assert isinstance(image["driver"], int) and isinstance(image["cuda"], str)


@pytest.mark.parametrize("name", IMAGES["images"])
def test_apptainer_builds_from_the_digest_and_enroot_from_the_tag(name: str, cluster: Cluster) -> None:
    image = IMAGES["images"][name]
    cluster.add("apptainer", 'ls "${3#source=}" >"$(dirname "$0")/../source"; ls "${3#source=}/containers" >>"$(dirname "$0")/../source"')
    result = cluster.run(cluster.environment(), "apptainer", "--image", name, "--output", "a b.sif", script=BUILD)
    assert result.returncode == 0, result.stderr
    [words] = cluster.calls("apptainer")
    assert words[0] == "build" and words[4] == f"base={image['repository']}@{image['digest']}"
    assert words[5:] == [str(cluster.work / "a b.sif"), str(CONTAINERS / "nemo.def")]
    packed = (cluster.folder / "source").read_text().split()
    assert {"requirements", "nemo_ext", "recipes", "pyproject.toml", "install_into_image.sh"} <= set(packed) and ".venv" not in packed

    cluster.add("enroot", 'if [[ $1 == create ]]; then mkdir -p "$ENROOT_DATA_PATH/$3/opt"; fi')
    result = cluster.run(cluster.environment(), "enroot", "--image", name, "--output", "a.sqsh", script=BUILD)
    assert result.returncode == 0, result.stderr
    steps = cluster.calls("enroot")
    assert [step[0] for step in steps] == ["import", "create", "start", "export"]
    registry, path = image["repository"].split("/", 1)
    assert steps[0][-1] == f"docker://{registry}#{path}:{image['tag']}"


def test_the_definition_file_names_the_default_image() -> None:
    image = IMAGES["images"][IMAGES["default"]]
    assert f"base={image['repository']}@{image['digest']}" in (CONTAINERS / "nemo.def").read_text(encoding="utf-8")


def test_an_image_that_is_there_is_not_overwritten_and_unknown_words_are_refused(cluster: Cluster) -> None:
    (cluster.work / "a.sif").touch()
    for arguments, message in (
        (["apptainer", "--output", "a.sif"], "already exists"),
        (["apptainer", "--image", "nemo-1.0"], f"no image nemo-1.0. It has: {' '.join(IMAGES['images'])}"),
        (["docker"], "unknown runtime docker"),
        (["apptainer", "--force"], "unknown option --force"),
        (["apptainer"], "apptainer is not on the PATH"),
    ):
        result = cluster.run(cluster.environment(), *arguments, script=BUILD)
        assert result.returncode == 1 and message in result.stderr, result.stderr


def test_the_lock_installs_nothing_that_the_image_brings() -> None:
    names = re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements" / "lock.txt").read_text(encoding="utf-8"), re.MULTILINE)
    brought = {"torch", "triton", "transformer-engine", "apex", "flash-attn"}
    assert not brought & {name.lower().replace("_", "-") for name in names}
    assert not [name for name in names if re.match(r"nvidia-(cu|nccl|nv)", name)]


@pytest.mark.parametrize(("after", "message"), [("2.10", None), ("2.13", "the lock replaced what the image brought")])
def test_installing_stops_when_the_lock_replaced_torch(after: str, message: str | None, cluster: Cluster) -> None:
    cluster.add(
        "python",
        """state=$(dirname "$0")/../torch
case $1 in
- ) echo "torch $(cat "$state" 2>/dev/null || echo 2.10)"; cat >/dev/null ;;
-m) [[ $2 == pip && $* == *--no-deps* ]] && echo """
        + after
        + """ >"$state" ;;
-c) [[ $2 == *sysconfig* ]] && echo /packages ;;
esac
true""",
    )
    cluster.add("sibol", "echo sibol 0.1.0")
    result = cluster.run(cluster.environment(), "/opt/sibol-source", script=CONTAINERS / "install_into_image.sh")
    if message is None:
        assert result.returncode == 0, result.stderr
    else:
        assert result.returncode == 1 and message in result.stderr
    installs = [call for call in cluster.calls("python") if call[:3] == ["-m", "pip", "install"]]
    assert len(installs) == 2 and all("--no-deps" in call for call in installs)
