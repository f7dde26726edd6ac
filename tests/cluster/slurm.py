"""A Slurm cluster of one node on this machine: its own keys, ports and folders, gone when the test is over."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
# Snakemake starts a job's step without SLURM_CONF, so that the settings must be where Slurm looks by itself.
SETTINGS_FOLDER = Path("/etc/slurm")
SETTINGS_FILES = ("slurm.conf", "gres.conf")

SETTINGS = """
ClusterName=atlas
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MinJobAge=600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Install Slurm from Debian when it is missing."""
    if not all(map(shutil.which, PROGRAMS)):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(command, check=True, env=environment)


def configured() -> bool:
    """Whether this machine belongs to a cluster already."""
    return any((SETTINGS_FOLDER / name).exists() for name in SETTINGS_FILES)


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Start the daemons, and stop them."""
    socket_file = folder / "munge.socket"
    with ExitStack() as daemons:
        daemons.enter_context(_settings(folder))
        munge_options = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        munged = ["munged", "--foreground", "--force", f"--socket={socket_file}", *munge_options]
        daemons.enter_context(_daemon(munged, folder))
        _wait(socket_file.exists, "munged made no socket", folder)
        daemons.enter_context(_daemon(["slurmctld", "-D"], folder))
        daemons.enter_context(_daemon(["slurmd", "-D", "-N", "localhost"], folder))
        _wait(lambda: _state() == "idle", "the node did not come up", folder)
        yield


@contextmanager
def _settings(folder: Path) -> Iterator[None]:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    # A GPU that is no device: enough for Slurm to count it.
    (folder / "gres.conf").write_text("NodeName=localhost Name=gpu File=/dev/null,/dev/zero\n")
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
    text = SETTINGS.format(folder=folder, cores=os.cpu_count(), memory=memory, **ports)
    (folder / "slurm.conf").write_text(text)
    for name in SETTINGS_FILES:
        (SETTINGS_FOLDER / name).symlink_to(folder / name)
    try:
        yield
    finally:
        for name in SETTINGS_FILES:
            (SETTINGS_FOLDER / name).unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _daemon(command: list[str], folder: Path) -> Iterator[None]:
    with open(folder / f"{command[0]}.out", "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _state() -> str:
    command = ["sinfo", "--noheader", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _wait(condition, complaint: str, folder: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(f"{file.name}:\n{file.read_text()}" for file in folder.glob("*.out"))
            raise RuntimeError(f"{complaint}\n{logs}")
        time.sleep(0.2)
