"""Start a stage where and as wide as its rule's resources say: on GPUs of its own, in one process or in several.

``python -m privimage.launch --gpus 4 --nodes 2 --processes 1 -- finetune …`` starts the stage ``finetune`` in eight
processes, one a GPU, on two nodes of a Slurm job; with ``--gpus 0 --processes 2`` in two on a CPU. Alone, a stage takes
the launcher's place, as if it had been called itself. Several are started and watched by torch's elastic agent, without
restarts: if one ends, all do, one sentence says why, and the same command goes on from what was saved.

Settings are the same however a stage is started, and so are its results up to rounding (``docs/cluster.md``).
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from privimage import cli, gpus, stopping
from privimage.errors import UserError

TOGETHER = ("classifier", "pretrain", "finetune", "sample", "features")  # stages that several processes may compute
OTHERS_GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")  # left over from whatever started Snakemake
MEETING_SECONDS = 300  # within which the nodes must have found each other


def main() -> int | None:
    """Start the stage; returned is its exit code, where it has not taken this process's place."""
    args = _arguments()
    stage, words = args.command[0], args.command[1:]
    if args.nodes > 1 and not args.meeting:
        _check(stage, args.processes, args)
        _on_each_node(args.nodes)
    if args.gpus == 0 and gpus.given():  # asked for in the scheduler's own words, such as Slurm's gres
        args.gpus = len(gpus.given()) if stage in TOGETHER else 1
    processes = args.gpus if args.gpus > 1 else args.processes
    _check(stage, processes, args)
    gpus.claim(args.gpus)
    if args.gpus == 1 and processes > 1 and os.environ.get(gpus.VISIBLE):
        raise UserError(
            f"got gpu: 1 and processes: {processes} where there is a GPU, and each process needs its own; set `gpu` to "
            "0 to compute on the CPU, or to as many as there shall be processes."
        )
    program = [sys.executable, "-m", f"privimage.{stage}", *words]
    if processes * args.nodes == 1:
        for name in [n for n in os.environ if n in OTHERS_GROUP or n.startswith("TORCHELASTIC_")]:
            del os.environ[name]
        sys.stdout.flush()
        os.execv(program[0], program)
    return _together(program, stage, processes, args.nodes, args.meeting)


def _check(stage: str, processes: int, args: argparse.Namespace) -> None:
    if stage not in cli.STAGES:
        raise UserError(f"`{stage}` is no stage; expected one of {', '.join(cli.STAGES)}.")
    if processes * args.nodes > 1 and stage not in TOGETHER:
        raise UserError(
            f"the stage `{stage}` computes in one process, got gpu: {args.gpus}, nodes: {args.nodes}, processes: "
            f"{args.processes}; ask for one of each. Several may compute {', '.join(TOGETHER)}."
        )
    if args.gpus > 1 and args.processes not in (1, args.gpus):
        raise UserError(
            f"got gpu: {args.gpus} and processes: {args.processes}; on GPUs there is one process for each: leave "
            "`processes` at 1."
        )


def _on_each_node(nodes: int) -> NoReturn:
    """This process becomes the `srun` that starts the launcher anew on each node of the Slurm job."""
    program = shutil.which("srun")
    if "SLURM_JOB_ID" not in os.environ or program is None:
        raise UserError(
            f"nodes: {nodes} needs a job of Slurm, and this is none; set `nodes` to 1, or use the profile `slurm`."
        )
    with socket.socket() as free:
        free.bind(("", 0))
        meeting = f"{socket.gethostname()}:{free.getsockname()[1]}"
    start = [program, f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", sys.executable]
    os.execv(program, [*start, "-m", "privimage.launch", "--meeting", meeting, *sys.argv[1:]])


def _check_port(meeting: str) -> None:
    """Return if this process may listen where the nodes meet; another program there would leave them waiting."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(meeting.rpartition(":")[2])))
        except OSError as error:
            raise UserError(f"the nodes cannot meet at {meeting} ({error.strerror}); start again.") from None


def _together(program: Sequence[str], stage: str, processes: int, nodes: int, meeting: str | None) -> int:
    """The stage's exit code, once all its processes have ended."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # what matters is said below, once
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ[stopping.DRIVER] = stopping.this_process()  # they end with this launcher, as it does with Snakemake
    first = not meeting or os.environ.get("SLURM_PROCID", "0") == "0"
    if meeting and first:
        _check_port(meeting)
    if nodes == 1 and "lo" in (name for _, name in socket.if_nameindex()):
        for library in ("GLOO", "NCCL"):  # what they send does not leave the machine
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory(prefix="privimage-") as folder:
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=processes,
            run_id=os.environ.get("SLURM_JOB_ID", str(os.getpid())),
            rdzv_backend="c10d",
            rdzv_endpoint=meeting or "localhost:0",
            rdzv_configs={"timeout": MEETING_SECONDS, "read_timeout": MEETING_SECONDS, "is_host": first},
            max_restarts=0,
            local_addr=None if meeting else "localhost",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, program[0])(*program[1:])
        except ChildFailedError as error:
            return _told(error.failures, stage)
        except SignalException as told:
            raise stopping.Stopped(stopping.reason(told.sigval)) from told
        except (RendezvousError, RuntimeError) as error:
            raise UserError(
                f"the processes of `{stage}` did not find each other at {meeting or 'localhost'} "
                f"({str(error).strip().splitlines()[0]}); is the port taken, or a node away? Start again."
            ) from error
    return 0


def _told(failures: Mapping[int, Any], stage: str) -> int:
    """The exit code of whichever process ended the others; what it had to say is printed."""
    rank, first = min(failures.items(), key=lambda item: _likely_cause(item[1].exitcode))
    if first.exitcode < 0:
        name = signal.Signals(-first.exitcode).name
        short = " (so ends what takes more memory than there is)" if name == "SIGKILL" else ""
        told = f"process {rank} of {stage} was ended by {name}{short}; the same command goes on from what was saved."
    else:
        own_words = (first.error_file_data or {}).get("message")
        told = f"process {rank} of {stage} failed with exit code {first.exitcode}; what it said is above."
        told = own_words["message"] if own_words else told
    print(f"error: {told}", file=sys.stderr)
    return stopping.EXIT_CODE if first.exitcode < 0 else first.exitcode


def _likely_cause(exitcode: int) -> int:
    """Smallest for who ended first: killed from outside, then failed, then stopped since another was gone."""
    if exitcode < 0 and exitcode != -signal.SIGTERM:
        return 0
    return 2 if exitcode in (stopping.EXIT_CODE, -signal.SIGTERM) else 1


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(
        prog="python -m privimage.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--gpus", type=int, default=0, help="GPUs on each node; above 1, one process for each")
    made.add_argument("--nodes", type=cli.count, default=1, help="nodes of the Slurm job")
    made.add_argument("--processes", type=cli.count, default=1, help="processes on each node, where there is no GPU")
    made.add_argument("--meeting", help="HOST:PORT at which the nodes meet; the launcher gives it to itself")
    made.add_argument("command", nargs="+", metavar="STAGE …", help="after `--`: the stage and its own flags")
    args = made.parse_args()
    if args.gpus < 0:
        made.error(f"argument --gpus: {args.gpus} is below 0")
    return args


if __name__ == "__main__":
    sys.exit(cli.run(main))
