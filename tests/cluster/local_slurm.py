"""A real Slurm on this machine, in a folder of its own: two nodes, each with two cores and a GPU that is /dev/null.

    with LocalSlurm(folder) as slurm:
        subprocess.run(["srun", "hostname"], env={**os.environ, **slurm.environment})

It needs root and Debian's packages slurm-wlm and munge, no systemd, no cgroups, and leaves nothing behind: its daemons
end with the block, and with the process that started them. ``python tests/cluster/local_slurm.py COMMAND...`` runs a
command, such as a shell, beside it.

The two nodes share this host, its cores and its file system. Memory is not enforced, and there is no accounting.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

NODES = ("n1", "n2")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr", "sshare")
DAEMONS = ("munged", "slurmctld", "slurmd", "setpriv")
CONFIGURATION = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
MinJobAge=300
KillWait=30
SlurmdTimeout=10
GresTypes=gpu
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=n1 NodeHostname=n1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000 Gres=gpu:fake:1
NodeName=n2 NodeHostname=n2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000 Gres=gpu:fake:1
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE
PartitionName=short Nodes=n1,n2 MaxTime=10
"""


def missing() -> str:
    """Why this machine cannot run it, or nothing. What is not installed is installed from Debian's packages."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if _absent() and not shutil.which("apt-get"):
        return f"{', '.join(_absent())} are not installed, and there is no apt-get"
    if _absent():
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        packages = ["install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge", "util-linux"]
        for words in (["update", "-qq"], packages):
            done = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, text=True)
        if done.returncode or _absent():
            return f"apt-get cannot install slurm-wlm and munge: {done.stderr.strip()[-300:]}"
    return ""


def _absent() -> list[str]:
    return [name for name in (*DAEMONS, *COMMANDS) if not shutil.which(name)]


@contextlib.contextmanager
def own_slurm(**how: str) -> Iterator[LocalSlurm]:
    """A ``LocalSlurm`` in a temporary folder, which is gone afterwards; sockets have short names only."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    try:
        with LocalSlurm(folder, **how) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class LocalSlurm:
    """Slurm, while the block is open. ``environment`` is what commands need to find it."""

    def __init__(self, folder: Path, gpus: str = "unnamed") -> None:
        """``gpus``: `unnamed` ones, which no stage looks for, `named` ones in CUDA_VISIBLE_DEVICES, or `none`."""
        self.folder, self.bin = folder, folder / "bin"
        self.environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen] = {}
        self.gpus = gpus

    def __enter__(self) -> LocalSlurm:
        try:
            self._configure()
            munge = [
                f"--{name}={self.folder}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "seed-file")
            ]
            munge += [f"--key-file={self.folder}/munge.key", f"--log-file={self.folder}/munge.log"]
            self._start("munged", ["munged", "--foreground", "--force", *munge])
            wait_for(lambda: (self.folder / "munge.socket").exists(), 20, "munged does not open its socket")
            self._start("slurmctld", ["slurmctld", "-D", "-c"])
            for node in NODES:
                self.start_node(node)
            wait_for(lambda: self.states() == dict.fromkeys(NODES, "idle"), 30, "the nodes do not become idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if "slurmctld" in self.daemons:
                self.cancel_all()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"warning: jobs were not cancelled, but killed ({error})", file=sys.stderr)
        finally:
            for daemon in reversed(self.daemons.values()):
                daemon.terminate()
            for daemon in self.daemons.values():
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
            self.daemons.clear()
            kill(self.processes())

    def _configure(self) -> None:
        for name in ("state", "bin", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        text = CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=self.folder, ports=free_ports(3))
        if self.gpus == "none":
            text = text.replace(" Gres=gpu:fake:1", "").replace("GresTypes=gpu\n", "")
        (self.folder / "slurm.conf").write_text(text)
        flags = "" if self.gpus == "named" else " Flags=no_gpu_env"
        gres = "" if self.gpus == "none" else f"Name=gpu Type=fake File=/dev/null{flags}\n"
        (self.folder / "gres.conf").write_text(gres)
        for name in COMMANDS:  # a job step loses its SLURM_ variables, and with them where the configuration is
            command = self.bin / name
            command.write_text(
                f'#!/bin/sh\nexport SLURM_CONF={self.folder}/slurm.conf\nexec {shutil.which(name)} "$@"\n'
            )
            command.chmod(0o755)

    def _start(self, name: str, words: list[str]) -> None:
        """The daemon runs, and ends with this process, however that ends."""
        with open(self.folder / f"{name}.told", "ab") as told:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *words], stdin=subprocess.DEVNULL, stdout=told,
                stderr=subprocess.STDOUT, env={**os.environ, **self.environment}, cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for whoever started it
            )  # fmt: skip

    def start_node(self, node: str) -> None:
        """The node's daemon runs."""
        self._start(node, ["slurmd", "-D", "-N", node])

    def crash_node(self, node: str) -> None:
        """The node is gone at once, as when its power fails: its daemon and all that its jobs had started."""
        kill([self.daemons[node].pid, *self.processes(node)])
        self.daemons.pop(node).wait(20)

    def processes(self, node: str = "") -> list[int]:
        """What runs of its jobs, on all nodes or on one."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            here = any(word.startswith(f"PATH={self.bin}:") for word in variables)
            if here and any(word.startswith(f"SLURMD_NODENAME={node}") for word in variables):
                found.append(int(process.name))
        return found

    def run(self, *words: str) -> str:
        """What one of Slurm's commands printed."""
        done = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def states(self) -> dict[str, str]:
        """By node: its state."""
        try:
            lines = self.run("sinfo", "-h", "-N", "-p", "all", "-o", "%N %T").splitlines()
        except RuntimeError:
            return {}
        return dict(line.split() for line in lines)

    def jobs(self, states: str = "all") -> list[Mapping[str, str]]:
        """All jobs it still knows of, in order: number, state, node, rule and reason."""
        names = ("id", "state", "node", "comment", "reason")
        lines = self.run("squeue", "-h", "--sort=i", f"--states={states}", "-o", "%i|%T|%N|%k|%r").splitlines()
        return [dict(zip(names, line.split("|"), strict=True)) for line in lines]

    def cancel_all(self) -> None:
        """No job is there any more; those that do not obey are killed."""
        for name in ("TERM", "KILL"):
            ids = [job["id"] for job in self.jobs("pending,running,completing,suspended")]
            if not ids:
                return
            self.run("scancel", *([] if name == "TERM" else ["--signal=KILL"]), *ids)
            try:
                wait_for(lambda: not self.jobs("pending,running,completing,suspended"), 20, "jobs do not end")
            except TimeoutError:
                continue


def kill(pids: Iterable[int]) -> None:
    """The processes are gone, without a chance to do anything about it."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listened at a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(happened: Callable[[], object], seconds: float, what: str) -> None:
    """Return once it has happened."""
    until = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.2)


def main() -> int:
    """Run a command beside a Slurm; the exit code is the command's."""
    reason = missing()
    if reason:
        print(f"error: no Slurm here: {reason}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, LocalSlurm(Path(folder)) as slurm:
        Path(folder).chmod(0o755)
        return subprocess.run(sys.argv[1:] or ["bash"], env={**os.environ, **slurm.environment}).returncode


if __name__ == "__main__":
    sys.exit(main())
