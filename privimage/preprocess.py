"""Join what was read of a source into two image sets, for training and held out, if nothing was wrong with it.

Reads:   the shards of one source (--shards).
Writes:  --train and --holdout (HDF5, each with its checksum), --contents (JSON: counts, sizes, copies, what was left
         out), --sheet (PNG: some images of each class). Those of a sensitive set belong under `internal/`.
Privacy: none; no image changes another. The sensitive set's files are the sensitive images themselves.
Source:  own.

If an image could not be used, nothing is written and every such image is listed; with `on_bad_image: skip` it is left
out and listed. Shards of a source that changed while it was read do not fit each other and are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from privimage import cli
from privimage.artifacts import Contents, ImageSet, Provenance, write_bytes
from privimage.data.record import Problem, printable
from privimage.data.survey import Seen, duplicates, unused, warnings_of
from privimage.errors import UserError
from privimage.releasing.places import place_in
from privimage.reporting.grid import contact_sheet
from privimage.settings import JoinSettings
from privimage.shards import Shard

VERSION = 2
TOLD = 1000  # problems that an error lists


@dataclass(frozen=True)
class Joined:
    """Two image sets that are still spread over the shards, and what was seen.

    ``train`` and ``test`` hold labels and shapes; their pixels come from ``stretches``.
    """

    train: ImageSet
    test: ImageSet
    contents: Contents
    shards: tuple[Shard, ...]

    def stretches(self, is_test: bool) -> Iterator[tuple[int, np.ndarray]]:
        """The pixels of one set, as (first index, uint8 [n, S, S, C])."""
        chosen = np.sort(np.concatenate([shard.positions[shard.is_test == is_test] for shard in self.shards]))
        for shard in self.shards:
            for rows, pixels in shard.stretches():
                keep = shard.is_test[rows] == is_test
                if keep.any():
                    yield int(np.searchsorted(chosen, shard.positions[rows][keep][0])), pixels[keep]


def run(shards: Sequence[Shard], settings: JoinSettings, num_images: int | None, provenance: Provenance) -> Joined:
    """The two sets of all shards together; ``num_images`` is what was declared of a sensitive set.

    Raises:
        UserError: if the shards do not fit each other, an image cannot be used, or a set is empty.
    """
    check_fit(shards)
    problems = [problem for _, problem in sorted((p for s in shards for p in s.problems), key=lambda p: p[0])]
    refuse(problems, skip=settings.on_bad_image == "skip")
    meta = shards[0].meta
    names = tuple(meta["class_names"])
    _check_names(names)
    positions, labels, is_test, hashes = _columns(shards)
    if is_test.all() or not is_test.any():
        raise UserError(
            f"the {meta['form']} gave {np.sum(~is_test)} training images and {np.sum(is_test)} test images; expected "
            "some of both: give it a part for testing (sub-folders `train` and `test`), or more images."
        )
    train, test = (_empty(shards[0], labels[is_test == part]) for part in (False, True))
    found = duplicates(hashes, is_test)
    examples = [[_name(shards, int(positions[i])) for i in group] for group in found.examples]
    seen = Seen()
    for shard in shards:
        seen.merge(shard.seen)
    warnings = [*meta["notes"], *doubts(train, num_images), *seen.warnings(), *warnings_of(found, examples)]
    contents = Contents(
        form=meta["form"],
        train=dict(zip(names, train.counts)),
        test=dict(zip(names, test.counts)),
        **seen.plain(),
        problems=[str(problem) for problem in problems],
        warnings=warnings,
        provenance=provenance,
    )
    sets = (replace(images, provenance=replace(provenance, settings=meta["settings"])) for images in (train, test))
    return Joined(*sets, contents, tuple(shards))


def check_fit(shards: Sequence[Shard]) -> None:
    """Return if these are all the parts of one source as it stood at one time.

    Raises:
        UserError: if they are not.
    """
    first = shards[0].meta
    if sorted(shard.meta["index"] for shard in shards) != list(range(first["of"])):
        raise UserError(f"got {len(shards)} shards; expected each of the {first['of']} parts of the source once.")
    for key in ("settings", "class_names", "num_items", "listing"):
        if any(shard.meta[key] != first[key] for shard in shards):
            raise UserError(
                f"the shards differ in their {key}: the source changed while it was read; delete the shards and rerun."
            )


def refuse(problems: Sequence[Problem], *, skip: bool) -> None:
    """Return if nothing is wrong, or all that is may be skipped.

    Raises:
        UserError: every problem, a line each.
    """
    fatal = [problem for problem in problems if not (skip and problem.skippable)]
    if fatal:
        lines = [f"  {problem}" for problem in fatal[:TOLD]]
        lines += [f"  and {len(fatal) - TOLD} more."] if len(fatal) > TOLD else []
        leave = "" if skip else " (`on_bad_image: skip` leaves out single images)"
        raise UserError(f"{len(fatal)} problems with the images; mend them{leave}:", *lines)


def doubts(train: ImageSet, num_images: int | None) -> Iterator[str]:
    """Sentences for the owner's eyes: where the set differs from what was declared or is expected of it."""
    if num_images and len(train.labels) != num_images:
        yield (
            f"{len(train.labels)} training images, and num_images is declared as {num_images}; the declared number is "
            "used for the guarantee, so mend it in the configuration if it is wrong."
        )
    yield from unused(train.class_names, train.counts)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if place_in(name):
            raise UserError(
                f"a class is called {printable(name)}, which reads as a path, and no release may hold one; expected "
                "words; write it without slashes in the labels of the images."
            )


def _columns(shards: Sequence[Shard]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions, labels, parts and hashes of all images, in the order of the list. Shapes: [N] each."""
    positions = np.concatenate([shard.positions for shard in shards])
    order = np.argsort(positions, kind="stable")
    rest = (np.concatenate([getattr(s, name) for s in shards])[order] for name in ("labels", "is_test", "hashes"))
    return positions[order], *rest


def _empty(shard: Shard, labels: np.ndarray) -> ImageSet:
    """An image set of the right shape that holds no pixels yet, nor memory."""
    settings = shard.meta["settings"]
    shape = (len(labels), settings["resolution"], settings["resolution"], settings["channels"])
    return ImageSet(np.broadcast_to(np.uint8(0), shape), labels, tuple(shard.meta["class_names"]), settings["source"])


def _name(shards: Sequence[Shard], position: int) -> str:
    for shard in shards:
        row = int(np.searchsorted(shard.positions, position))
        if row < len(shard.positions) and shard.positions[row] == position:
            return shard.names([row])[0]
    raise IndexError(position)


def main() -> None:
    """Read the flags, run, write."""
    parser = cli.parser("preprocess", __doc__, JoinSettings)
    parser.add_argument("--shards", required=True, nargs="+", type=Path, help="all parts of one source")
    parser.add_argument("--num-images", type=cli.count, help="declared training images, for a sensitive set")
    parser.add_argument("--train", required=True, type=Path, help="HDF5 to write")
    parser.add_argument("--holdout", required=True, type=Path, help="HDF5 to write")
    parser.add_argument("--contents", required=True, type=Path, help="JSON to write")
    parser.add_argument("--sheet", required=True, type=Path, help="PNG to write")
    args = parser.parse_args()
    settings = cli.settings_from(JoinSettings, args.settings)
    shards = [Shard.read(path) for path in args.shards]
    joined = run(shards, settings, args.num_images, Provenance("preprocess", VERSION))
    for problem in joined.contents.problems:
        print(f"left out: {problem}", file=sys.stderr)
    for warning in joined.contents.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    joined.train.write_stretches(args.train, joined.stretches(False))
    joined.test.write_stretches(args.holdout, joined.stretches(True))
    joined.contents.write(args.contents)
    train = ImageSet.read(args.train)
    write_bytes(args.sheet, contact_sheet(train.images, train.labels, train.class_names))


if __name__ == "__main__":
    cli.run(main)
