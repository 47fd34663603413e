"""Read one part of a source of images: each image becomes a square of the row's size, or a problem that is listed.

Reads:   the source that the row names: image files, archives, arrays, or images that a package ships or draws.
Writes:  --shard (HDF5): this part's squares, labels and names, and what was wrong with the others.
Privacy: none; constants and per-image rules only, so that no image changes another. What is read from a sensitive set
         belongs under `internal/`.
Source:  resizing as in the official repository of Li et al. 2024.
"""

from __future__ import annotations

from pathlib import Path

from privimage import cli
from privimage.data.chosen import read
from privimage.data.reading import Part
from privimage.schema import plain
from privimage.settings import Source
from privimage.shards import write_shard

VERSION = 1


def run(source: Source, class_names: tuple[str, ...] | None, index: int, of: int, path: Path) -> int:
    """The shard's file is there; returned is how many images it holds.

    ``class_names`` are those declared of a sensitive set, None for a public one.

    Raises:
        UserError: if the source as a whole cannot be read, or its classes are not the declared ones.
    """
    collection = read(source, class_names)
    # Where the images lay on this machine is nobody's business.
    settings = {key: value for key, value in plain(source).items() if key != "path"}
    return write_shard(path, Part(collection, source, index, of), settings)


def main() -> None:
    """Read the flags, run."""
    parser = cli.parser("shard", __doc__, Source)
    parser.add_argument("--class-names", type=cli.names, metavar="JSON", help="declared classes, for a sensitive set")
    parser.add_argument("--index", required=True, type=int, help="which part, from 0")
    parser.add_argument("--of", required=True, type=cli.count, help="number of parts")
    parser.add_argument("--shard", required=True, type=Path, help="HDF5 to write")
    args = parser.parse_args()
    if not 0 <= args.index < args.of:
        parser.error(f"--index is {args.index}; expected 0 to {args.of - 1}")
    source = cli.settings_from(Source, args.settings)
    run(source, args.class_names, args.index, args.of, args.shard)


if __name__ == "__main__":
    cli.run(main)
