"""Fetch a published set of images, or a network, into a folder: only what is not there yet, resumed, and checked.

Reads:   the folder, and the addresses in `privimage.data.published` for the files that it lacks.
Writes:  the files into --folder, each under its name only when it is whole; --complete (JSON: the files with their
         sizes and SHA-256), last of all. With --optional, what cannot be reached is no error, and the reason is
         written; a wrong file is one.
Privacy: none; published files, and the servers learn nothing but that somebody fetched them.
Source:  addresses and checksums as the sets' authors and torchvision publish them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from privimage import artifacts, cli
from privimage.data.fetch import Unreachable, alone, obtain
from privimage.data.published import NETWORKS, PUBLISHED
from privimage.data.record import printable
from privimage.errors import UserError

VERSION = 1


def run(source: str, folder: Path, complete: Path | None = None) -> list[dict[str, str | int | None]]:
    """The files of the set that lie in the folder, with their sizes in bytes and their SHA-256.

    Of a set that only a person may fetch, the entries of the folder are listed, if there are any; they are not read,
    since they may be huge and no checksum is known: what they should be, the set's reader says.

    Raises:
        Unreachable: if a file lacks and no address gives it.
        UserError: if a file is not the published one, or is to be fetched by hand.
    """
    published = {**PUBLISHED, **NETWORKS}.get(source)
    if published is None:
        raise UserError(
            f"source `{printable(source)}` is not a published set that may be fetched; expected one of "
            f"{', '.join(PUBLISHED)}. Name the folder or file of your images as the row's `path`."
        )
    try:
        if isinstance(published, str):
            return _by_hand(published, folder, complete)
        with alone(folder):
            found = [path for file in published for path in obtain(file, folder)]
            return [_entry(path, folder) for among in found for path in _files(among)]
    except OSError as error:
        where = printable(str(error.filename or folder))
        raise UserError(f"{where} cannot be read ({error.strerror}); mend its permissions or its disk.") from error


def _by_hand(how: str, folder: Path, complete: Path | None) -> list[dict[str, str | int | None]]:
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    own = complete.absolute() if complete else None
    there = [path for path in there if path.name[0] != "." and path.suffix != ".log" and path.absolute() != own]
    if not there:
        raise UserError(f"{how}; put them into {printable(str(folder))}, or name their folder as the row's `path`.")
    sizes = [path.stat().st_size if path.is_file() else None for path in there]
    return [{"name": printable(path.name), "size": size, "sha256": None} for path, size in zip(there, sizes)]


def _files(found: Path) -> list[Path]:
    """A file, or all visible files of a folder."""
    if found.is_file():
        return [found]
    return sorted(path for path in found.rglob("[!.]*") if path.is_file())


def _entry(path: Path, folder: Path) -> dict[str, str | int | None]:
    name = printable(path.relative_to(folder).as_posix())
    return {"name": name, "size": path.stat().st_size, "sha256": artifacts.sha256(path)}


def main() -> None:
    """Read the flags, run, write."""
    parser = cli.parser("download", __doc__)
    parser.add_argument("--source", required=True, help="published set, such as `mnist`")
    parser.add_argument("--folder", required=True, type=Path, help="folder of its files")
    parser.add_argument("--complete", required=True, type=Path, help="JSON to write when all files are there")
    parser.add_argument(
        "--optional", action="store_true", help="where no address gives it, write why instead of failing"
    )
    args = parser.parse_args()
    try:
        found: list | dict = run(args.source, args.folder, args.complete)
    except Unreachable as error:
        if not args.optional:
            raise
        print(f"going on without {args.source}: {error}", file=sys.stderr)
        found = {"missing": str(error)}
    artifacts.write_text(args.complete, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
