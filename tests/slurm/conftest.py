"""A SLURM of one node on loopback, for this session: munged, slurmctld and slurmd with ports and folders of their own.

Nothing under /etc is read or written: SLURM_CONF names the configuration, and the key of munge is made here. The node
claims four cores, whatever the machine has, so that two runs of two processes fit beside each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.conftest import data as data  # the fixture: tiny videos, lists and a teacher
from tests.recipes.conftest import SCRIPTS, clean_environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scontrol", "scancel", "sinfo", "squeue")
CONFIGURATION = """
ClusterName=umt
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
# A requeued job may start again once the credential of its last start has expired, by default after 120 seconds.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={node} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=video Nodes={node} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={node} MaxTime=INFINITE State=UP PriorityTier=2
"""


def end_with_the_tests() -> None:
    """In a daemon before it starts: it gets SIGTERM when the tests end, even if they are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]


def wait_for(moment: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Returns once `moment` is true; fails the test, saying `what` did not come, after `seconds`."""
    end = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)


@dataclass(frozen=True)
class Cluster:
    """The running SLURM: its commands, and experiments run as a user of the cluster would."""

    environ: dict[str, str]

    def call(self, *words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """The finished command, whatever its exit code."""
        environment = {**self.environ, **environ}
        return subprocess.run(
            words, capture_output=True, text=True, timeout=240, check=False, env=environment, cwd=cwd
        )  # fmt: skip

    def experiment(self, script: str, *flags: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """The finished script, called in `cwd`, with its run in out/ there unless `environ` says otherwise."""
        return self.call("bash", str(SCRIPTS[script]), *flags, cwd=cwd, **{"OUTPUT_DIR": "out", **environ})

    def submit(self, script: str, *flags: str, cwd: Path, **environ: str) -> str:
        """The number of the job that SUBMIT=1 made."""
        done = self.experiment(script, *flags, cwd=cwd, SUBMIT="1", **environ)
        assert done.returncode == 0, done.stderr
        number = re.search(r"^Submitted batch job (\d+)$", done.stdout, re.MULTILINE)
        assert number is not None, done.stdout
        return number[1]

    def facts(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says, by name."""
        said = self.call("scontrol", "show", "job", "--oneliner", job)
        assert said.returncode == 0, said.stderr
        return dict(word.split("=", 1) for word in said.stdout.split() if "=" in word)

    def end_of(self, job: str, seconds: float = 200) -> dict[str, str]:
        """Waits until the job is over for good; its facts."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        wait_for(lambda: self.facts(job)["JobState"] in over, f"the end of job {job}", seconds)
        return self.facts(job)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    # Daemons live in /usr/sbin, which is not on everyone's PATH.
    environ = {**clean_environment(), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=environ["PATH"]) is None]
    if missing:
        pytest.skip(f"SLURM is not installed here ({', '.join(missing)}): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root may start SLURM's daemons")
    # A short folder: the path of a socket has at most 107 characters.
    folder, node = Path(tempfile.mkdtemp(prefix="umt-slurm-")), socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(node=node, folder=folder, ports=free_ports(2)))
    environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        socket.gethostbyname(node)
    except OSError:
        environ["MASTER_ADDR"] = "127.0.0.1"  # a container whose own name means nothing to it

    made = Cluster(environ)
    own = {name: f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "daemons.log").open("wb") as log:
            for words in (
                ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *own.values()],
                ["slurmctld", "-D"],
                ["slurmd", "-D"],
            ):
                daemons.append(
                    subprocess.Popen(
                        words, env=environ, stdout=log, stderr=log, start_new_session=True,
                        preexec_fn=end_with_the_tests,
                    )
                )  # fmt: skip
                if words[0] == "munged":
                    wait_for((folder / "munge.socket").exists, "munge's socket", 20)
        idle = ("sinfo", "--noheader", "--format=%T", "--partition=video")
        try:
            wait_for(lambda: made.call(*idle).stdout.strip() == "idle", "an idle node", 60)
        except AssertionError as error:
            logs = [path.read_text(errors="replace")[-3000:] for path in sorted(folder.glob("*.log"))]
            pytest.fail(f"{error}\n" + "\n".join(logs))
        yield made
        made.call("scancel", "--user=root")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not made.call("squeue", "--noheader").stdout.strip(), "an empty queue", 40)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)
