"""PBS where there is none: a strict reader of directives, stand-ins for its commands that record argv, and a node that runs a script.

What OpenPBS accepts is taken from its qsub(1B) and pbs_resources(7B); anything the reader does not know it refuses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SERVER = "vm"
VALUES = {
    "-N": r"[A-Za-z][\w.+-]{0,229}",
    "-S": r"/bin/bash",
    "-j": r"oe|eo|n",
    "-k": r"o?e?d?",
    "-o": r"[\w./+@=-]+/",
    "-r": r"[yn]",
    "-A": r"[\w.@-]+",
    "-q": r"[\w.@-]+",
    "-J": r"\d+-\d+(:\d+)?(%\d+)?",
}
RESOURCES = {
    "walltime": r"(\d+:)?[0-5]?\d:[0-5]\d",
    "place": r"(free|pack|scatter|vscatter)(:(excl|exclhost|shared))?",
    "select": r"[1-9]\d*(:(ncpus|mpiprocs|ngpus|ompthreads)=[1-9]\d*|:mem=[1-9]\d*(kb|mb|gb|tb))*",
}


class PbsError(Exception):
    """A script or a command that PBS would refuse, or would read otherwise than it looks."""


@dataclass
class PbsScript:
    """The directives of a script: options, and resources of `-l`."""

    options: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> PbsScript:
    """Read a script's directives. Raises PbsError for unknown or repeated ones, bad values, and any that stands after code."""
    script, lines = PbsScript(), text.splitlines()
    if not lines or lines[0] != "#!/bin/bash":
        raise PbsError("the first line is not #!/bin/bash")
    code_began = False
    for line in lines[1:]:
        if line.startswith("#PBS"):
            if code_began:
                raise PbsError(f"{line!r} stands after code, where PBS ignores it")
            _directive(line, script)
        elif line.strip() and not line.startswith("#"):
            code_began = True
    for needed in ("-N", "-o", "-j"):
        if needed not in script.options:
            raise PbsError(f"no {needed}")
    for needed in ("select", "walltime", "place"):
        if needed not in script.resources:
            raise PbsError(f"no -l {needed}")
    return script


def _directive(line: str, script: PbsScript) -> None:
    words = line.split(" ")
    if len(words) != 3 or words[0] != "#PBS":
        raise PbsError(f"{line!r} is not `#PBS OPTION VALUE` with single blanks")
    _, option, value = words
    if option == "-l":
        name, _, amount = value.partition("=")
        if name not in RESOURCES or not re.fullmatch(RESOURCES[name], amount) or name in script.resources:
            raise PbsError(f"{line!r}: unknown, repeated or malformed resource")
        script.resources[name] = amount
    elif option not in VALUES or not re.fullmatch(VALUES[option], value) or option in script.options:
        raise PbsError(f"{line!r}: unknown, repeated or malformed option")
    else:
        script.options[option] = value


QSUB = """#!/bin/bash
number=$(($(ls "$PBS_RECORD" | wc -l) + 1))
printf '%s\\0' "$@" > "$PBS_RECORD/qsub.$number"
env > "$PBS_RECORD/../environment.$number"
[[ ! -e $PBS_RECORD/../refuse.$number ]] || { echo "qsub: Unknown queue" >&2; exit 170; }
for word in "$@"; do [[ $word == -J ]] && { echo "$number[].SERVER"; exit; }; done
echo "$number.SERVER"
"""


class FakePbs:
    """Stand-ins for `qsub` and `qstat` in a folder to be put first on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.record = folder / "bin", folder / "record"
        self.folder = folder
        self.bin.mkdir(parents=True)
        self.record.mkdir()
        self._write("qsub", QSUB.replace("SERVER", SERVER))
        self.environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "PBS_RECORD": str(self.record)}

    def submitted(self) -> list[list[str]]:
        """argv of every qsub, in order."""
        files = sorted(self.record.glob("qsub.*"), key=lambda path: int(path.suffix[1:]))
        return [path.read_text().split("\0")[:-1] for path in files]

    def refuse(self, number: int) -> None:
        """Let the qsub with this number fail."""
        (self.folder / f"refuse.{number}").touch()

    def answer_qstat(self, text: str) -> None:
        """What qstat prints from now on."""
        (self.folder / "qstat.json").write_text(text)
        self._write("qstat", f"#!/bin/bash\ncat '{self.folder / 'qstat.json'}'\nexit 35\n")  # as for jobs it has forgotten

    def _write(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)


def run_as_job(script: Path, submit_dir: Path, home: Path, number: int, index: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script as PBS's MoM does: a copy of it, in the home folder, with a login environment and PBS's variables alone."""
    spool = home / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    job_id = f"{number}[{index}].{SERVER}" if index is not None else f"{number}.{SERVER}"
    copy = spool / f"{job_id}.SC"
    shutil.copy(script, copy)
    nodes = spool / f"{job_id}.nodes"
    nodes.write_text(f"{os.uname().nodename}\n")
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "SHELL": "/bin/bash",
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_JOBID": job_id,
        "PBS_O_WORKDIR": str(submit_dir),
        "PBS_NODEFILE": str(nodes),
        "OMP_NUM_THREADS": "64",  # ncpus, as PBS sets it
        **({"PBS_ARRAY_INDEX": str(index), "PBS_ARRAY_ID": f"{number}[].{SERVER}"} if index is not None else {}),
    }
    return subprocess.run(
        ["bash", str(copy)], cwd=home, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
