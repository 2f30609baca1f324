"""Programs of a cluster that this machine has not: each notes how it was called, and does as little of its work as a test needs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = REPOSITORY / "jobs" / "body" / "job.sh"
NO_OPTIONS = "while [[ ${1:-} == -* ]]; do shift; done\n"

# srun: the command once per task, all at the same time, each knowing its node; the worst exit code.
SRUN = (
    """tasks=1 pids=() worst=0
for argument in "$@"; do [[ $argument == --ntasks=* ]] && tasks=${argument#*=}; done
"""
    + NO_OPTIONS
    + """for ((node = 0; node < tasks; node++)); do
    SLURM_NODEID=$node SLURM_NTASKS=$tasks SLURM_PROCID=$node SLURM_STEP_ID=0 "$@" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || { code=$?; ((code > worst)) && worst=$code; }; done
exit "$worst"
"""
)
# pbs_tmrsh HOST COMMAND...: on another machine, so without our environment, in another folder.
PBS_TMRSH = 'shift\ncd / && exec env -i "PATH=$CLUSTER_PATH" "CLUSTER_PATH=$CLUSTER_PATH" "$@"\n'
SCONTROL = 'if [[ $1 == show ]]; then IFS=, read -ra names <<<"$3"; printf \'%s\\n\' "${names[@]}"; fi\n'


class Cluster:
    """A folder of stand-ins, before everything else on the PATH, and what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        self.work = folder / "work"
        self.work.mkdir()
        self.path = f"{self.programs}:/usr/bin:/bin"

    def add(self, name: str, work: str = "", code: int = 0) -> None:
        """A program that appends to NAME.calls how many arguments it got, and each of them, all ended by NUL, then runs `work`."""
        program = self.programs / name
        note = f"printf '%s\\0' \"$#\" \"$@\" >>'{self.folder}/{name}.calls'\n"
        program.write_text(f"#!/bin/bash\n{note}{work}\nexit {code}\n", encoding="utf-8")
        program.chmod(0o755)

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of every call, in order."""
        record = self.folder / f"{name}.calls"
        if not record.exists():
            return []
        words = record.read_text(encoding="utf-8").split("\0")[:-1]
        calls = []
        while words:
            end = 1 + int(words[0])
            calls.append(words[1:end])
            words = words[end:]
        return calls

    def environment(self, **settings: str) -> dict[str, str]:
        """What a job's script would see: little, and its settings."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        base = {"PATH": self.path, "CLUSTER_PATH": self.path, "HOME": str(self.folder), "TMPDIR": str(scratch), "LANG": "C.UTF-8"}
        return {**base, "SIBOL_PROJECT": str(REPOSITORY), "SIBOL_JOB_NAME": "trial", **settings}

    def slurm(self, nodes: str = "n1", **settings: str) -> dict[str, str]:
        """The environment of a Slurm job, with stand-ins for its programs."""
        self.add("scontrol", SCONTROL)
        self.add("srun", SRUN)
        facts = {"SIBOL_JOB_WALLTIME_S": "3600", "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": nodes, "SLURM_SUBMIT_DIR": str(self.work)}
        return self.environment(SIBOL_JOB_SCHEDULER="slurm", **{**facts, **settings})

    def pbs(self, *nodes: str, **settings: str) -> dict[str, str]:
        """The environment of a PBS job, with stand-ins for its programs. A node may be named more than once, as PBS does."""
        self.add("pbs_tmrsh", PBS_TMRSH)
        self.add("qsub", "echo 4712.server")
        node_file = self.folder / "nodes"
        node_file.write_text("".join(f"{node}\n" for node in nodes or ("n1",)), encoding="utf-8")
        facts = {
            "SIBOL_JOB_WALLTIME_S": "3600",
            "PBS_JOBID": "4711.server",
            "PBS_NODEFILE": str(node_file),
            "PBS_O_WORKDIR": str(self.work),
            "OMP_NUM_THREADS": "64",
        }
        return self.environment(SIBOL_JOB_SCHEDULER="pbs", **{**facts, **settings})

    def run(self, environment: Mapping[str, str], *command: str, script: Path = JOB) -> subprocess.CompletedProcess[str]:
        """Run the body of jobs, or another script, to its end in the work folder."""
        return subprocess.run(["bash", str(script), *command], env=dict(environment), cwd=self.work, capture_output=True, text=True)

    def start(self, environment: Mapping[str, str], *command: str) -> subprocess.Popen[str]:
        """Start the body of jobs; its messages and its output come through `stdout`."""
        return subprocess.Popen(
            ["bash", str(JOB), *command],
            env=dict(environment),
            cwd=self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def everything_written(self) -> bytes:
        """All bytes of all files here: what was recorded, logged and left behind."""
        paths = [Path(root) / name for root, _, names in os.walk(self.folder) for name in names]
        return b"\0".join(path.read_bytes() for path in paths)
