"""Secrets come out of a file that only its owner reads, and go nowhere but into the environment of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stand_ins import Cluster

VALUE = "hf_5up3r s3cr3t,$(touch run)'\"`"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def write_secrets(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "secrets.env"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def test_values_are_taken_literally_and_never_run(cluster: Cluster) -> None:
    text = f'# tokens\n\nHF_TOKEN={VALUE}\nWANDB_API_KEY="in quotes"\nEMPTY=\nLAST=without a line\'s end'
    environment = cluster.environment(SIBOL_JOB_SECRETS=write_secrets(cluster.folder, text))
    result = cluster.run(environment, "bash", "-c", 'printf "%s|" "$HF_TOKEN" "$WANDB_API_KEY" "$EMPTY" "$LAST"')
    assert result.stdout == f"{VALUE}|in quotes||without a line's end|"
    assert "secrets: HF_TOKEN WANDB_API_KEY EMPTY LAST" in result.stderr
    assert not (cluster.work / "run").exists()


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("HF_TOKEN=x\n", 0o644, "can be read by others"),
        ("HF_TOKEN=x\n", 0o640, "can be read by others"),
        ("HF_TOKEN=x\nexport WANDB_API_KEY=y\n", 0o600, "Line 2 of"),
        ("just words\n", 0o600, "is not NAME=VALUE"),
        ("PATH=/tmp\n", 0o600, "sets PATH, which is no secret"),
        ("LD_PRELOAD=/tmp/x.so\n", 0o600, "sets LD_PRELOAD"),
        ("SIBOL_JOB_NODES=9\n", 0o600, "sets SIBOL_JOB_NODES"),
    ],
)
def test_a_file_that_is_open_or_odd_is_refused(text: str, mode: int, message: str, cluster: Cluster) -> None:
    environment = cluster.environment(SIBOL_JOB_SECRETS=write_secrets(cluster.folder, text, mode))
    result = cluster.run(environment, "touch", "started")
    assert result.returncode == 1
    assert message in result.stderr
    assert "=x" not in result.stderr and "=y" not in result.stderr
    assert not (cluster.work / "started").exists()


def test_a_file_that_is_not_there_is_refused(cluster: Cluster) -> None:
    result = cluster.run(cluster.environment(SIBOL_JOB_SECRETS="/not/there"), "true")
    assert result.returncode == 1 and "/not/there, is not there" in result.stderr


@pytest.mark.parametrize("runtime", ["apptainer", "enroot", "pyxis", "none"])
@pytest.mark.parametrize("scheduler", ["slurm", "pbs"])
def test_no_secret_is_in_an_argument_a_log_or_a_file(scheduler: str, runtime: str, cluster: Cluster) -> None:
    if (scheduler, runtime) == ("pbs", "pyxis"):
        runtime = "none"
    secrets = cluster.folder / "private"
    secrets.mkdir()
    path = write_secrets(secrets, "HF_TOKEN=sesame-42\n")
    for name in ("apptainer", "enroot"):
        cluster.add(name, f'[[ ${{APPTAINERENV_HF_TOKEN:-$HF_TOKEN}} == sesame-42 ]] && touch "{cluster.folder}/got it"')
    image = cluster.folder / ("image.sif" if runtime == "apptainer" else "image.sqsh")
    image.touch()
    settings = {"SIBOL_JOB_SECRETS": path, "SIBOL_JOB_RUNTIME": runtime, "SIBOL_JOB_IMAGE": str(image)}
    environment = cluster.slurm("n1,n2", **settings) if scheduler == "slurm" else cluster.pbs("n1", "n2", **settings)
    result = cluster.run(environment, "bash", "-c", f'[[ ${{HF_TOKEN:0:6}} == sesame ]] && touch "{cluster.folder}/got it"')
    assert result.returncode == 0, result.stderr
    assert (cluster.folder / "got it").exists()
    Path(path).unlink()
    for name in ("apptainer", "enroot"):
        (cluster.programs / name).unlink()
    assert b"sesame-42" not in cluster.everything_written()
    assert "sesame-42" not in result.stdout + result.stderr


def test_nothing_prints_the_environment_or_traces_what_runs() -> None:
    body = Path(__file__).resolve().parents[2]
    for script in [*(body / "jobs" / "body").glob("*.sh"), *(body / "containers").glob("*.sh")]:
        text = script.read_text(encoding="utf-8")
        for word in ("set -x", "xtrace", "printenv", "declare -p", "export -p"):
            assert word not in text, f"{script.name} holds {word!r}"
