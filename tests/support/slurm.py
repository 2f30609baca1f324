"""A real Slurm on this machine: munged, slurmctld and fake nodes on the loopback address, in a folder of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from nemo_ext.common.processes import end_with_parent

OPT_OUT = "SIBOL_TEST_SLURM"  # "off" leaves the tests of real Slurm out
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun")
FAKE_GPUS = 8  # per node: character devices, or Slurm would not hand them out
UNFINISHED = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED")

CONFIGURATION = """\
ClusterName=sibol
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0,requeue_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
EnforcePartLimits=ALL
SlurmdParameters=config_overrides
MailProg=/bin/true
MinJobAge=3600
KillWait=30
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=168:00:00 State=UP
"""


class SlurmError(Exception):
    """Slurm did not come up, or a job did not do what was expected."""


class Slurm:
    """One controller and `nodes` fake nodes `g1`, `g2`, ... with cores, memory and GPUs as a big site has them."""

    def __init__(
        self, folder: Path, nodes: int = 2, cores: int = 112, memory_mib: int = 2_048_000, gpu_models: tuple[str, ...] = ("h100",)
    ) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._waits_since: dict[str, float] = {}
        self._nodes = [f"g{number + 1}" for number in range(nodes)]
        self._facts = f"CPUs={cores} RealMemory={memory_mib} Gres=" + ",".join(f"gpu:{model}:{FAKE_GPUS}" for model in gpu_models)
        self._models = gpu_models

    def start(self) -> None:
        """Bring it up. Raises SlurmError with the daemons' logs when it does not come."""
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise SlurmError(f"{', '.join(missing)} not found. Run tests/support/install_slurm.sh as root, or set {OPT_OUT}=off.")
        self._write()
        munge = self.folder / "munge"
        self._spawn("munged", "--force", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
                    f"--log-file={munge}/log", f"--seed-file={munge}/seed")  # fmt: skip
        self._await(lambda: (munge / "socket").exists(), "munged")
        self._spawn("slurmctld", "-D", "-c", "-f", str(self.folder / "slurm.conf"))
        for node in self._nodes:
            self._spawn("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))
        self._await(lambda: self._idle() == len(self._nodes), "the nodes")

    def stop(self) -> None:
        """Cancel what runs and end all daemons."""
        if self._processes:
            self._try("scancel", "--state=RUNNING", "--user=root")
            self._try("scancel", "--user=root")
            deadline = time.monotonic() + 10
            while self._try("squeue", "--noheader", "--states=RUNNING,COMPLETING").strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output of a Slurm command."""
        environment = {**os.environ, **self.environment}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        if check and result.returncode != 0:
            raise SlurmError(f"{' '.join(command)} failed ({result.returncode}): {result.stderr}{result.stdout}")
        return str(result.stdout)

    def job(self, job_id: str) -> list[dict[str, str]]:
        """The controller's record of a job: one per element of an array."""
        text = self.run("scontrol", "--oneliner", "show", "job", job_id)
        return [dict(word.split("=", 1) for word in line.split(" ") if "=" in word) for line in text.splitlines() if line.strip()]

    def wait(self, job_id: str, timeout_s: float) -> list[dict[str, str]]:
        """Wait for the end of a job or array and return its records. Requeued jobs start at once (see `hurry`)."""
        deadline = time.monotonic() + timeout_s
        while True:
            records = self.job(job_id)
            if not any(record["JobState"] in UNFINISHED for record in records):
                return records
            if time.monotonic() > deadline:
                raise SlurmError(f"Job {job_id} did not end within {timeout_s} s: {records}")
            self.hurry(job_id)
            time.sleep(0.3)

    def hurry(self, job_id: str) -> None:
        """Let a requeued job start now: Slurm would have it wait for two minutes."""
        waits = any(record["JobState"] == "PENDING" and record.get("Reason") == "BeginTime" for record in self.job(job_id))
        since = self._waits_since.setdefault(job_id, time.monotonic()) if waits else self._waits_since.pop(job_id, None)
        if waits and since is not None and time.monotonic() - since > 2:  # within a second of its end, nodes refuse to start it again
            self._try("scontrol", "update", f"jobid={job_id}", "StartTime=now")

    def _write(self) -> None:
        munge = self.folder / "munge"
        munge.mkdir(parents=True)
        munge.chmod(0o700)
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o600)
        (self.folder / "state").mkdir()
        host, lines = socket.gethostname().partition(".")[0], []
        for node in self._nodes:
            (self.folder / "spool" / node).mkdir(parents=True)
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} {self._facts}")
        text = CONFIGURATION.format(host=host, port=free_port(), folder=self.folder, nodes="\n".join(lines))
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("".join(self._gpu_line(model, number) for number, model in enumerate(self._models)))

    def _gpu_line(self, model: str, number: int) -> str:
        devices = self.folder / "devices"
        devices.mkdir(exist_ok=True)
        for index in range(FAKE_GPUS):
            os.mknod(devices / f"{model}{index}", 0o666 | 0o020000, os.makedev(1, 3))  # /dev/null under another name
        return f"Name=gpu Type={model} File={devices}/{model}[0-{FAKE_GPUS - 1}] Flags=nvidia_gpu_env\n"

    def _spawn(self, *command: str) -> None:
        log = open(self.folder / f"{command[0]}-{len(self._processes)}.console", "wb")  # noqa: SIM115  the daemon's, closed below
        with log:
            options = {"stdout": log, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "preexec_fn": end_with_parent}
            self._processes.append(subprocess.Popen(command, **options))  # type: ignore[call-overload]

    def _await(self, condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                logs = "\n".join(
                    f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in sorted(self.folder.glob("*.log"))
                )
                raise SlurmError(f"{what} did not come up.\n{logs}")
            time.sleep(0.1)

    def _idle(self) -> int:
        return self._try("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").count("\n")

    def _try(self, *command: str) -> str:
        return self.run(*command, check=False)


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
