"""Turn any source of images into two image sets: squares of one size, labelled, for training and held out.

Reads:   the source that the row names: image files, or images that an installed package ships or draws.
Writes:  --train and --holdout (HDF5, each with its checksum). Those of a sensitive set belong under `internal/`.
Privacy: none; constants and per-image rules only, so that no image changes another. The sensitive set's files are
         the sensitive images themselves.
Source:  resizing as in the official repository of Li et al. 2024.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from privimage import cli
from privimage.artifacts import ImageSet, Provenance
from privimage.data import READERS
from privimage.errors import UserError
from privimage.schema import plain
from privimage.settings import Source

VERSION = 1


def run(source: Source, class_names: tuple[str, ...] | None = None) -> tuple[ImageSet, ImageSet]:
    """The training and held-out images of a row; ``class_names`` are those declared of a sensitive set.

    Raises:
        UserError: if the source is unknown or unreadable, or its classes are not the declared ones.
    """
    if source.source not in READERS:
        raise UserError(f"source is `{source.source}`; expected one of {', '.join(sorted(READERS))}.")
    train, holdout = READERS[source.source](source, class_names)
    if class_names and train.class_names != class_names:
        listed = ", ".join(f'"{name}"' for name in train.class_names)
        raise UserError(
            f"source `{source.source}` has the classes {list(train.class_names)}; expected "
            f"{list(class_names)}, as declared. Write `class_names: [{listed}]`."
        )
    return train, holdout


def doubts(train: ImageSet, num_images: int) -> Iterator[str]:
    """Sentences for the owner's eyes: where the sensitive set differs from what was declared of it."""
    if len(train.labels) != num_images:
        yield (
            f"{len(train.labels)} training images, and num_images is declared as {num_images}; the declared number is "
            "used for the guarantee, so mend it in the configuration if it is wrong."
        )
    for name, count in zip(train.class_names, train.counts):
        if not count:
            yield f'class "{name}" has no training image.'


def main() -> None:
    """Read the flags, run, write."""
    parser = cli.parser("preprocess", __doc__, Source)
    parser.add_argument("--class-names", type=cli.names, metavar="JSON", help="declared classes, for a sensitive set")
    parser.add_argument("--num-images", type=cli.count, help="declared training images, for a sensitive set")
    parser.add_argument("--train", required=True, type=Path, help="HDF5 to write")
    parser.add_argument("--holdout", required=True, type=Path, help="HDF5 to write")
    args = parser.parse_args()
    source = cli.settings_from(Source, args.settings)
    train, holdout = run(source, args.class_names)
    for doubt in doubts(train, args.num_images) if args.num_images else ():
        print(f"warning: {doubt}", file=sys.stderr)
    # Where the images lay on this machine is nobody's business.
    provenance = Provenance("preprocess", VERSION, {k: v for k, v in plain(source).items() if k != "path"})
    replace(train, provenance=provenance).write(args.train)
    replace(holdout, provenance=provenance).write(args.holdout)


if __name__ == "__main__":
    cli.run(main)
