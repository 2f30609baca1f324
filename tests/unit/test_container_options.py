"""What a container gets: the command word by word, checked mounts, variables by name, a GPU only where there is one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.support.stand_ins import REPOSITORY, Cluster

RUN_IN_CONTAINER = REPOSITORY / "containers" / "run_in_container.sh"
ODD_WORDS = ["two words", "quote'\"", "$HOME $(touch run)", "a,b", "*", "back\\slash", ""]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster(tmp_path)
    for name in ("apptainer", "enroot"):
        cluster.add(name)
    cluster.add("nvidia-smi", code=9)  # on whatever machine this runs, there is no GPU
    (cluster.work / "image.sif").touch()
    (cluster.work / "image.sqsh").touch()
    return cluster


def call(cluster: Cluster, program: str, *arguments: str, **settings: str) -> list[str]:
    """Run the script and return the runtime's arguments."""
    result = cluster.run(cluster.environment(**settings), *arguments, script=RUN_IN_CONTAINER)
    assert result.returncode == 0, result.stderr
    [words] = cluster.calls(program)
    return words


def apptainer_mounts(words: list[str]) -> list[dict[str, str]]:
    """The fields of each --mount, read as Apptainer reads them: one line of CSV."""
    lines = [words[at + 1] for at, word in enumerate(words) if word == "--mount"]
    return [dict(field.partition("=")[::2] for field in next(csv.reader([line]))) for line in lines]


def enroot_mounts(words: list[str]) -> list[tuple[str, ...]]:
    """The fields of each --mount, read as Enroot does: by colons, then octal numbers as in fstab."""
    lines = [words[at + 1] for at, word in enumerate(words) if word == "--mount"]
    assert not any(set(line) & set(" \t\n") for line in lines), "enroot refuses blanks"
    return [tuple(field.encode().decode("unicode_escape") for field in line.split(":")) for line in lines]


@pytest.mark.parametrize(("runtime", "image"), [("apptainer", "image.sif"), ("enroot", "image.sqsh")])
def test_the_command_arrives_word_by_word(runtime: str, image: str, cluster: Cluster) -> None:
    words = call(cluster, runtime, "--runtime", runtime, "--image", image, "--", "sibol", *ODD_WORDS)
    assert words[-len(ODD_WORDS) - 1 :] == ["sibol", *ODD_WORDS]
    assert image in words
    assert not (cluster.work / "run").exists()


def test_apptainer_starts_clean_and_contained_with_its_caches_on_a_local_disk(cluster: Cluster) -> None:
    cluster.add("apptainer", f'env | grep ^APPTAINER_ >"{cluster.folder}/host"')
    words = call(cluster, "apptainer", "--image", "image.sif", "true")
    scratch = words[4]
    assert Path(scratch).parent == Path(cluster.environment()["TMPDIR"])
    assert words[:7] == ["exec", "--cleanenv", "--containall", "--workdir", scratch, "--pwd", str(cluster.work)]
    assert "--writable" not in words and "--writable-tmpfs" not in words
    lines = (cluster.folder / "host").read_text().splitlines()
    assert sorted(lines) == [f"APPTAINER_CACHEDIR={scratch}/apptainer/cache", f"APPTAINER_TMPDIR={scratch}/apptainer/tmp"]


def test_enroot_keeps_everything_of_its_own_on_a_local_disk_and_the_image_read_only(cluster: Cluster) -> None:
    cluster.add("enroot", f'env | grep ^ENROOT_ >"{cluster.folder}/host"')
    words = call(cluster, "enroot", "--image", "image.sqsh", "true")
    assert words[0] == "start" and "--rw" not in words and "--root" not in words
    scratch = cluster.environment()["TMPDIR"]
    found = dict(line.split("=", 1) for line in (cluster.folder / "host").read_text().splitlines())
    assert found.pop("ENROOT_MOUNT_HOME") == "no"
    assert set(found) == {"ENROOT_DATA_PATH", "ENROOT_CACHE_PATH", "ENROOT_TEMP_PATH", "ENROOT_RUNTIME_PATH"}
    assert all(path.startswith(scratch) for path in found.values())
    assert (str(Path(found["ENROOT_DATA_PATH"]).parents[1] / "tmp"), "/tmp") in enroot_mounts(words)


@pytest.mark.parametrize("name", ["plain", "two words", "a,b", 'quote"s', "quote's", "dollar $HOME", "back\\slash", "tab\there", "naïve"])
def test_folders_of_any_name_are_mounted(name: str, cluster: Cluster) -> None:
    folder = cluster.folder / name
    folder.mkdir()
    mount = f"{folder}:/data/{name}:ro"
    mounted = apptainer_mounts(call(cluster, "apptainer", "--image", "image.sif", "--mount", mount, "true"))[-1]
    assert mounted == {"type": "bind", "source": str(folder), "destination": f"/data/{name}", "ro": ""}
    if name != "naïve":  # decoding as above would take each byte for a character
        assert enroot_mounts(call(cluster, "enroot", "--image", "image.sqsh", "--mount", mount, "true"))[-1] == (
            *(str(folder), f"/data/{name}"),
            *("none", "x-create=auto,rbind,ro"),
        )


def test_the_project_and_the_working_folder_are_mounted_where_they_are(cluster: Cluster) -> None:
    mounts = apptainer_mounts(call(cluster, "apptainer", "--image", "image.sif", "true"))
    assert [mount["source"] for mount in mounts] == [str(REPOSITORY), str(cluster.work)]
    assert all(mount["source"] == mount["destination"] for mount in mounts)


def test_only_listed_variables_go_in_and_only_by_name(cluster: Cluster) -> None:
    settings = {"HF_HOME": str(cluster.folder), "NCCL_DEBUG": "WARN a b$c", "SSH_AUTH_SOCK": "/run/agent", "PYTHONPATH": "/site/packages"}
    cluster.add("apptainer", f'env -0 >"{cluster.folder}/host"')
    words = call(cluster, "apptainer", "--image", "image.sif", "true", **settings)
    assert not any("WARN" in word for word in words)
    inside = dict(line.split("=", 1) for line in (cluster.folder / "host").read_text().split("\0") if line.startswith("APPTAINERENV_"))
    assert inside["APPTAINERENV_NCCL_DEBUG"] == "WARN a b$c"
    assert inside["APPTAINERENV_PYTHONPATH"] == str(REPOSITORY), "the host's packages stay outside"
    assert inside["APPTAINERENV_TMPDIR"] == "/tmp"
    assert not {"APPTAINERENV_SSH_AUTH_SOCK", "APPTAINERENV_PATH", "APPTAINERENV_HOME"} & set(inside)
    words = call(cluster, "enroot", "--image", "image.sqsh", "true", **settings)
    names = {words[at + 1] for at, word in enumerate(words) if word == "--env"}
    assert {"NCCL_DEBUG", "HF_HOME", "TMPDIR"} <= names
    assert not any("=" in name for name in names) and not {"SSH_AUTH_SOCK", "PATH", "HOME"} & names


def test_the_gpu_is_passed_where_there_is_one(cluster: Cluster) -> None:
    assert "--nv" not in call(cluster, "apptainer", "--image", "image.sif", "true")
    words = call(cluster, "enroot", "--image", "image.sqsh", "true")
    assert "NVIDIA_VISIBLE_DEVICES" in words, "which says `void`, so that the image's own `all` does not ask for a driver"
    (cluster.folder / "apptainer.calls").unlink()
    (cluster.folder / "enroot.calls").unlink()
    cluster.add("nvidia-smi", "echo GPU 0")
    assert "--nv" in call(cluster, "apptainer", "--image", "image.sif", "true")
    assert "NVIDIA_VISIBLE_DEVICES" not in call(cluster, "enroot", "--image", "image.sqsh", "true")


def test_pyxis_gets_its_options_through_srun(cluster: Cluster) -> None:
    settings = {"SIBOL_JOB_RUNTIME": "pyxis", "SIBOL_JOB_IMAGE": "nvcr.io#nvidia/pytorch:25.11-py3", "SIBOL_JOB_MODULES": "enroot"}
    environment = cluster.slurm("n1,n2", NCCL_DEBUG="WARN", **settings)
    environment["BASH_FUNC_module%%"] = "() { true; }"
    script = 'echo "rank $SIBOL_JOB_NODE_RANK in $SIBOL_JOB_RUNTIME, modules: $SIBOL_JOB_MODULES"'
    result = cluster.run(environment, "bash", "-c", script)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == ["rank 0 in none, modules: ", "rank 1 in none, modules: "]
    [words] = cluster.calls("srun")
    options = [word for word in words if word.startswith("--") and "container" in word]
    assert options[:3] == [
        "--container-image=nvcr.io#nvidia/pytorch:25.11-py3",
        f"--container-workdir={cluster.work}",
        "--no-container-mount-home",
    ]
    assert options[3] == f"--container-mounts={REPOSITORY}:{REPOSITORY},{cluster.work}:{cluster.work}"
    assert "NCCL_DEBUG" in options[4].removeprefix("--container-env=").split(",")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtime", "docker", "true"], "Runtime docker is not known: expected auto, apptainer, enroot, pyxis or none"),
        (["--runtime", "apptainer", "true"], "needs an image. Build one (containers/build.sh apptainer)"),
        (["--runtime", "apptainer", "--image", "other.sif", "true"], "The image other.sif is not there"),
        (["--runtime", "apptainer", "--image", "image.sqsh", "true"], "image.sqsh is an Enroot image"),
        (["--runtime", "enroot", "--image", "image.sif", "true"], "image.sif is an Apptainer image"),
        (["--runtime", "apptainer", "--image", "docker://ubuntu", "true"], "is not fetched by every job anew"),
        (["--runtime", "pyxis", "--image", "image.sqsh", "true"], "this is no Slurm job"),
        (["--image", "image.sif", "--mount", "/not/there:/data", "true"], "/not/there is not there"),
        (["--image", "image.sif", "--mount", "data:/data", "true"], "both paths must be absolute"),
        (["--image", "image.sif", "--mount", "/tmp", "true"], "expected SRC:DST or SRC:DST:ro"),
        (["--image", "image.sif", "--mount", "/tmp:/data:rx", "true"], "expected SRC:DST or SRC:DST:ro"),
        (["--image", "image.sif", "--mount", "/tmp:/a:ro:b", "true"], "a path with a colon cannot be mounted"),
        (["--image", "image.sif", "--mount", "/tmp:/data\n/etc:/etc", "true"], "holds a line break"),
        (["--image", "image\n.sif", "--runtime", "apptainer", "true"], "holds a line break"),
        (["--image"], "--image needs a value"),
        (["--network", "true"], "unknown option --network"),
        (["--runtime", "none"], "no command"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(arguments: list[str], message: str, cluster: Cluster) -> None:
    result = cluster.run(cluster.environment(), *arguments, script=RUN_IN_CONTAINER)
    assert result.returncode == 1
    assert message in result.stderr
    assert cluster.calls("apptainer") == cluster.calls("enroot") == []


def test_a_runtime_that_is_not_installed_names_the_one_that_is(cluster: Cluster) -> None:
    (cluster.programs / "apptainer").unlink()
    result = cluster.run(cluster.environment(), "--image", "image.sif", "true", script=RUN_IN_CONTAINER)
    assert result.returncode == 1 and "but enroot is. Use --runtime enroot" in result.stderr
    (cluster.programs / "enroot").unlink()
    result = cluster.run(cluster.environment(), "--image", "image.sif", "true", script=RUN_IN_CONTAINER)
    assert result.returncode == 1 and "Load its module" in result.stderr


def test_a_variable_with_a_line_break_is_refused_since_no_runtime_carries_it(cluster: Cluster) -> None:
    result = cluster.run(cluster.environment(NCCL_DEBUG="a\nb"), "--image", "image.sif", "true", script=RUN_IN_CONTAINER)
    assert result.returncode == 1 and "NCCL_DEBUG holds a line break" in result.stderr


def test_without_an_image_the_command_just_runs_with_its_exit_code(cluster: Cluster) -> None:
    result = cluster.run(cluster.environment(), "--", "bash", "-c", 'echo "$@"; exit 9', "bash", "--image", script=RUN_IN_CONTAINER)
    assert (result.returncode, result.stdout) == (9, "--image\n")
    assert "no image: the command runs without a container" in result.stderr


def test_a_path_that_the_command_would_not_find_is_named(cluster: Cluster) -> None:
    (cluster.folder / "data").mkdir()
    (cluster.work / "data").symlink_to(cluster.folder / "data")
    (cluster.work / "here").mkdir()
    arguments = ["--image", "image.sif", "--dry-run", "--"]
    words = ["sibol", "train", "data.path=./data", "output_dir=./here", f"{cluster.folder}/data", "x=./not/there"]
    result = cluster.run(cluster.environment(), *arguments, *words, script=RUN_IN_CONTAINER)
    assert result.stderr.count("is not mounted into the container") == 2
    assert f"./data (that is, {cluster.folder}/data) is not mounted" in result.stderr
    mounted = ["--mount", f"{cluster.folder}/data:{cluster.folder}/data", *arguments]
    assert "not mounted" not in cluster.run(cluster.environment(), *mounted, *words, script=RUN_IN_CONTAINER).stderr


def test_a_dry_run_shows_the_command_and_starts_nothing(cluster: Cluster) -> None:
    result = cluster.run(cluster.environment(), "--image", "image.sif", "--dry-run", "--", "echo", "a b", script=RUN_IN_CONTAINER)
    assert result.stdout.startswith("'apptainer' 'exec' '--cleanenv' '--containall'")
    assert "'echo' 'a b'" in result.stdout and "variables: " in result.stdout
    assert cluster.calls("apptainer") == []
