"""What lets a long stage go on where it stopped: a folder with one whole, checked checkpoint.

The folder is no declared output of a rule (Snakemake would delete it), its name holds a fingerprint of settings and
inputs, and the fingerprint is compared again inside.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from privimage import stopping
from privimage.artifacts import make_folder, tensors_sha256, write_file
from privimage.config import canonical
from privimage.errors import UserError


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A name for exactly these facts: 32 hexadecimal digits of the SHA-256 of their canonical JSON."""
    return hashlib.sha256(canonical(facts).encode()).hexdigest()[:32]


class Checkpoint:
    """One checkpoint in ``folder``: tensors and JSON-like state, replaced as a whole; or one each of several parts.

    ``name`` is the fingerprint, compared again on loading. Messages name the folder ``shown``, where the folder's own
    path holds a fingerprint of sensitive data.

    Raises:
        UserError: if another process works in the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, name: str, shown: Path | None = None) -> None:
        self.folder, self.name, self.shown = Path(folder), name, shown or folder
        try:
            make_folder(self.folder)
            self.folder.chmod(0o700)
            self._lock = open(self.folder / "lock", "w")  # noqa: SIM115 - held until the process ends
        except OSError as error:
            raise UserError(f"checkpoints cannot be kept under {self.shown} ({error.strerror}); mend that.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"a run under {self.shown} is in use by another process; wait or stop it.") from None

    def path(self, part: int = 0) -> Path:
        """The file of the checkpoint."""
        return self.folder / f"checkpoint-{part}.safetensors"

    def save(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], part: int = 0) -> None:
        """The checkpoint is on the disk, whole; the one before it is gone."""
        flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        body = {"name": self.name, "part": part, "state": state}
        body["sha256"] = fingerprint({**body, "tensors": tensors_sha256(flat)})
        metadata = {"privimage": canonical(body)}
        write_file(
            self.path(part), lambda file: save_file(flat, file, metadata=metadata), private=True, shown=self.shown
        )

    def load(self, part: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The tensors and state of the last checkpoint, or None if there is none.

        Raises:
            UserError: if it is damaged, or belongs to other settings or inputs.
        """
        path = self.path(part)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                body = json.loads(file.metadata()["privimage"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            seal = body.pop("sha256")
            whole = seal == fingerprint({**body, "tensors": tensors_sha256(tensors)})
            name, state = (body["name"], body["part"]), body["state"]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"a checkpoint under {self.shown} is damaged ({error}); delete it.") from error
        if not whole:
            raise UserError(f"a checkpoint under {self.shown} is damaged (checksum); delete it.")
        if name != (self.name, part):
            raise UserError(f"a checkpoint under {self.shown} belongs to other settings or inputs; delete it.")
        return tensors, state

    def remove(self) -> None:
        """Nothing is left of the checkpoint."""
        self._lock.close()
        shutil.rmtree(self.folder)


class Every:
    """When to save: at most once in ``seconds``, and as soon as the stage is to stop."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        """Whether the stage is to stop or the interval has passed; if so, the interval starts anew."""
        if not stopping.asked() and time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


def flatten(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Named tensors under a common prefix, for one checkpoint that holds several groups."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def group(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of one prefix, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
