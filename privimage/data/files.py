"""Files and folders that a source names: whether they are there, and what lies in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from privimage.data.messages import shown
from privimage.errors import UserError
from privimage.settings import Source


def path_of(source: Source) -> Path:
    """The folder or regular file that a source names.

    Raises:
        UserError: if there is none.
    """
    path = Path(source.path or "")
    if not source.path or not (os.path.isdir(path) or os.path.isfile(path)):  # pathlib raises for names too long
        told = f"{shown(path)} is not there" if source.path else f"`source: {source.source}` has no path"
        raise UserError(f"{told}; `path` must name a file or folder of images.")
    return path


def unlisted(folder: Path, error: OSError) -> UserError:
    """The error of a folder that cannot be listed."""
    return UserError(f"{shown(folder)} cannot be listed ({error.strerror}); mend its permissions.")


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, sorted.

    Raises:
        UserError: if the folder cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise unlisted(folder, error) from None


def files_in(folder: Path, endings: Sequence[str]) -> list[Path]:
    """The visible files of a folder whose names end so, sorted.

    Raises:
        UserError: if the folder cannot be listed, or one of them is no regular file.
    """
    found = [path for path in listed(folder) if path.suffix.lower() in endings and path.name[0] != "."]
    for path in found:
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except PermissionError as error:
            raise UserError(f"{shown(path)} cannot be reached ({error.strerror}); mend the permissions.") from None
        except OSError:
            regular = False
        if not regular:
            raise UserError(f"{shown(path)} is no regular file; remove it, or mend the link.")
    return found
