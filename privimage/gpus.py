"""Which GPUs a stage computes on. Stages that run side by side on one machine get different ones, or wait.

A scheduler has given a job its GPUs, named by ``CUDA_VISIBLE_DEVICES``. Where a Snakemake runs stages on its own
machine nobody has: there each GPU has a lock, which its stage holds until it ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from privimage import stopping
from privimage.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARED = "PRIVIMAGE_GPUS"  # `shared`: stages choose among the machine's; `given`: a scheduler chose
REQUIRED = "PRIVIMAGE_GPU_REQUIRED"  # set for stages that were given GPUs, and shall not compute without
LOCKS = Path("/tmp")  # of the machine, whatever a job calls its temporary folder
PATIENCE = 1.0  # seconds between two looks whether a GPU is free


def given() -> list[str]:
    """The GPUs that a scheduler gave to the job that this process belongs to."""
    return _named() if os.environ.get(SHARED) == "given" else []


def _named() -> list[str]:
    """The GPUs that the environment names; some schedulers name none by a word of their own."""
    return [name for name in os.environ.get(VISIBLE, "").split(",") if name not in ("", "-1", "NoDevFiles")]


def claim(count: int) -> None:
    """Programs started from here see ``count`` GPUs, or none if that is 0; a single one is done without if none exists.

    Raises:
        UserError: if there are fewer than asked for.
    """
    if count == 0:
        os.environ[VISIBLE] = ""
        return
    uuids = _on_this_machine()
    devices = list(uuids) if VISIBLE not in os.environ else _named()
    if given():
        os.environ[REQUIRED] = "1"
    if len(devices) < count and (count > 1 or os.environ.get(REQUIRED)):
        raise UserError(
            f"the stage asks for {count} GPUs, and {len(devices)} can be seen on {socket.gethostname()}; set the "
            "resource `gpu` to what there is, or ask for another machine."
        )
    if devices and uuids and os.environ.get(SHARED) == "shared":
        devices = _locked(devices, count, uuids)
    if devices:
        os.environ[VISIBLE] = ",".join(devices[:count])


def _on_this_machine() -> dict[str, str]:
    """The numbers of the NVIDIA GPUs that can be seen, and their names for ever; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False).stdout
    return dict(re.findall(r"^GPU (\d+): .*\(UUID: (\S+)\)", listed, re.MULTILINE))


def _locked(devices: list[str], count: int, uuids: dict[str, str]) -> list[str]:
    """So many of the devices, locked for this process and what it becomes; all at once, or two would wait for ever.

    Raises:
        UserError: if somebody else owns the folder of locks.
    """
    folder = LOCKS / f"privimage-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder} belongs to somebody else; it is for locks of yours: have it removed.")
    said = False
    while True:
        held: dict[str, int] = {}
        for device in devices:
            handle = os.open(
                folder / f"{uuids.get(device, device)}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600
            )
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            held[device] = handle
            if len(held) == count:
                for handle in held.values():
                    os.set_inheritable(handle, True)
                return list(held)
        for handle in held.values():
            os.close(handle)
        if not said:
            print(f"waiting for {count} of {len(devices)} GPUs, which other stages use", file=sys.stderr, flush=True)
            said = True
        time.sleep(PATIENCE)
        stopping.check()
