"""A real SLURM cluster of one node on this machine: daemons of our own, on configuration and ports of our own.

Uses Debian's packages slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins and munge. No test installs them: `make
slurm` runs this file, which says what it installs and then does. Nothing outside a temporary folder is configured, and
every daemon ends with the test.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge"]
PROGRAMS = ["slurmctld", "slurmd", "slurmstepd", "sbatch", "squeue", "scontrol", "munged"]
SYSTEM_PATH = "/usr/sbin:/usr/local/sbin"  # where daemons lie, which not every user has in PATH
CONF = """ClusterName=atlas
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
MinJobAge=3600
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=64000 Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
SRUN = """#!/bin/sh
export SLURM_CONF={folder}/slurm.conf  # Snakemake's job step clears the environment of SLURM's variables
exec {srun} "$@"
"""


def lacking() -> list[str]:
    """The programs of a cluster that are not on this machine."""
    places = f"{os.environ['PATH']}:{SYSTEM_PATH}"
    return [name for name in PROGRAMS if not shutil.which(name, path=places)]


def missing() -> str:
    """Why no cluster can be started here; empty where it can."""
    programs = lacking()
    return f"no SLURM here ({', '.join(programs)} missing); `make slurm` installs it" if programs else ""


def install() -> None:
    """Install PACKAGES where programs are missing, after one line that says so; end with one line where it cannot."""
    programs = lacking()
    if not programs:
        print("SLURM is here: nothing to install")
        return
    command = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    said = f"SLURM is missing ({', '.join(programs)})"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"{said}; install it as root, on Debian or Ubuntu by `{command}`")
    print(f"{said}; installing them, and what they need, by `{command}`", flush=True)
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "-q", "update"], [*command.split(), "-q", "-y"]):
        done = subprocess.run(step, env=quiet, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"`{' '.join(step)}` failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """A context manager; ``environment`` is what commands and Snakemake need to reach the cluster."""

    def __init__(self, folder: Path, cores: int = 2):
        self.folder, self.daemons = folder, []
        host = socket.gethostname().split(".")[0]
        values = {"host": host, "user": os.environ.get("USER") or "root", "folder": folder, "cores": cores}
        if os.geteuid() == 0:
            values["user"] = "root"
        for name in ("state", "spool", "bin", "munge"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o755)
        (folder / "slurm.conf").write_text(CONF.format(**values, ctld_port=free_port(), d_port=free_port()))
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        srun = folder / "bin" / "srun"
        srun.write_text(SRUN.format(folder=folder, srun=shutil.which("srun")))
        srun.chmod(0o755)
        path = f"{folder}/bin:{os.environ['PATH']}:{SYSTEM_PATH}"
        self.environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": path}

    def start(self, *command) -> None:
        log = open(self.folder / f"{Path(command[0]).name}.log", "w")  # noqa: SIM115, the daemon's
        environment = self.environment | {"MALLOC_ARENA_MAX": "2"}
        self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True))

    def __enter__(self) -> "Cluster":
        folder = self.folder
        self.start(
            "munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munge/munged.pid", f"--log-file={folder}/munge/munged.log",
            f"--seed-file={folder}/munge/munged.seed",
        )  # fmt: skip
        self.wait_for(lambda: (folder / "munge.socket").exists())
        self.start("slurmctld", "-D", "-c")
        self.start("slurmd", "-D")
        self.wait_for(lambda: "idle" in self.command("sinfo", "-h", "-o", "%T"))
        return self

    def __exit__(self, *_) -> None:
        self.command("scancel", "--state=PENDING,RUNNING", "--user", str(os.geteuid()))
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def command(self, *command) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def wait_for(self, ready, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not ready():
            dead = [daemon.args[0] for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "".join(f"\n{file.name}: {file.read_text()[-2000:]}" for file in self.folder.glob("*.log"))
                raise RuntimeError(f"the cluster does not start ({dead or 'too slow'}){logs}")
            time.sleep(0.1)

    def jobs(self) -> list[dict[str, str]]:
        """What SLURM knows of every job so far, finished ones included: JobId, JobState, MinMemoryNode, ..."""
        lines = self.command("scontrol", "--oneliner", "show", "jobs").splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]


if __name__ == "__main__":
    install()
