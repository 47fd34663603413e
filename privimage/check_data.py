"""``privimage check-data``: say everything that is wrong with a set of images before anything is run on it.

One pass over the source, by the readers and rules that the workflow uses: every problem with its file and its mending,
images of each class, sizes, how they are stored, copies within and across the parts, and a contact sheet.
"""

from __future__ import annotations

import argparse
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from privimage import cli
from privimage.artifacts import write_private
from privimage.config_checks import check_source
from privimage.data import reader
from privimage.data.reading import Part, Square
from privimage.data.record import Collection, Problem, printable
from privimage.data.survey import Seen, duplicates, square_hash, unused, warnings_of
from privimage.errors import UserError
from privimage.progress import progress
from privimage.reporting.grid import contact_sheet, default_per_class, sheet_classes
from privimage.schema import build
from privimage.settings import Source

SHEET = Path("contact-sheet.png")
RESOLUTION = 64  # of the squares that are compared and shown


@dataclass
class Found:
    """Everything that one pass saw."""

    form: str
    class_names: tuple[str, ...]
    counts: np.ndarray  # [classes, 2]: for training, for testing
    seen: Seen = field(default_factory=Seen)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sheet: list[tuple[int, np.ndarray]] = field(default_factory=list)  # (class, uint8 [64, 64, 3])

    def fatal(self, *, skip: bool) -> bool:
        """Whether the workflow would stop at it."""
        return not self.counts.sum(0).all() or any(not (skip and problem.skippable) for problem in self.problems)


def run(collection: Collection, source: Source) -> Found:
    """What the collection holds, in one pass that reads every image."""
    found = Found(collection.form, collection.class_names, np.zeros((len(collection.class_names), 2), np.int64))
    hashes, is_test, names = array("Q"), bytearray(), []
    shown = set(sheet_classes(len(collection.class_names)).tolist())
    part = Part(collection, source)
    for item in progress(part, "check-data", None):
        if not isinstance(item, Square):
            found.problems.append(item[1])
            continue
        if item.label in shown and found.counts[item.label].sum() < default_per_class(len(shown)):
            found.sheet.append((item.label, item.pixels))
        found.counts[item.label, int(item.is_test)] += 1
        found.seen.add(item)
        hashes.append(square_hash(item.pixels.tobytes()))
        is_test.append(item.is_test)
        names.append(item.name)
    copies = duplicates(np.array(hashes, np.uint64), np.frombuffer(is_test, np.uint8).astype(bool))
    alike = warnings_of(copies, [[names[i] for i in group] for group in copies.examples])
    found.warnings = [*part.notes, *_doubts(found), *found.seen.warnings(), *alike]
    return found


def _doubts(found: Found) -> Iterator[str]:
    train, test = found.counts.sum(0)
    if not (train and test):
        yield f"{train} training images and {test} test images: the workflow needs some of both."
    if len(found.class_names) == 1:
        yield "one class only: the images are taken as unlabelled, and no classifier can be measured."
    yield from unused(found.class_names, found.counts[:, 0].tolist())


def told(found: Found, where: str) -> str:
    """What was found, for a person to read."""
    train, test = found.counts.sum(0)
    lines = [f"{printable(where)}: {found.form}", f"  {train:,} training images, {test:,} test images"]
    width = min(40, max((len(printable(name)) for name in found.class_names), default=0))
    for name, (kept, held_out) in list(zip(found.class_names, found.counts))[:50]:
        lines.append(f"    {printable(name)[:width]:{width}}  {kept:10,}  {held_out:10,}")
    lines += [f"    and {len(found.class_names) - 50} more classes"] if len(found.class_names) > 50 else []
    if found.seen.widths:
        sizes = [
            f"{side} {low} to {high}"
            for side, (low, high) in (("width", found.seen.widths), ("height", found.seen.heights))
        ]
        stored = [f"{how} ({count:,})" for how, count in found.seen.stored.most_common()]
        lines += [f"  pixels: {', '.join(sizes)}", f"  stored as: {', '.join(stored)}"]
    lines += [f"warning: {warning}" for warning in found.warnings]
    lines += [f"problem: {problem}" for problem in found.problems]
    lines.append(f"{len(found.problems)} problems, {len(found.warnings)} warnings")
    return "\n".join(lines)


def _unfit(sheet: Path, source: str) -> str | None:
    """Why the contact sheet may not be written there, if so: it takes no image's place, nor a device's."""
    place, images = (Path(os.path.realpath(path)) for path in (sheet, source))  # pathlib's own raises for loops
    if images in (place, *place.parents):
        return "lies among the images"
    return "is no file" if os.path.exists(sheet) and not os.path.isfile(sheet) else None


def _write_sheet(sheet: Path, found: Found) -> str:
    """What a person is told of the sheet: where it is, or why it is not. The exit code does not depend on it."""
    labels, pixels = zip(*found.sheet)
    try:
        write_private(sheet, contact_sheet(np.stack(pixels), np.array(labels), found.class_names))
    except UserError as error:
        return f"warning: there is no contact sheet: {error}"
    return f"some of the images, for your eyes: {printable(str(sheet))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Check, tell, and return the exit code: 0 if the workflow would take the images, else 1."""
    parser = argparse.ArgumentParser(prog="privimage check-data", description=__doc__.split("\n\n")[0])
    parser.add_argument("path", help="folder, archive or file of images")
    parser.add_argument("--source", default="auto", help="reader of the images; by default, whatever fits the path")
    parser.add_argument("--class-names", type=cli.names, metavar="JSON", help='declared classes: ["cat", "dog"]')
    parser.add_argument("--variant", help="which part of a source that has several, such as EMNIST's letters")
    parser.add_argument("--attribute", help="CelebA's attribute that labels the images")
    parser.add_argument("--max-pixels", type=cli.count, default=Source.max_pixels, help="refuse larger images")
    parser.add_argument("--on-bad-image", choices=("error", "skip"), default="error", help="skip: bad images may be")
    parser.add_argument("--sheet", type=Path, help=f"PNG to write, of real images [{SHEET}]")
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in ("source", "path", "variant", "attribute", "max_pixels")}
    source = build(Source, {**given, "resolution": RESOLUTION, "channels": 3})
    check_source("check-data", source)
    sheet, unfit = args.sheet or SHEET, _unfit(args.sheet or SHEET, source.path or "")
    if unfit and args.sheet:
        raise UserError(f"--sheet is {printable(str(sheet))}, which {unfit}; expected a PNG to write elsewhere.")
    found = run(reader(source.source)(source, args.class_names), source)
    print(told(found, args.path))
    if unfit:
        print(f"no contact sheet was written, since {SHEET} {unfit}; `--sheet` names another place.")
    elif found.sheet:
        print(_write_sheet(sheet, found))
    return int(found.fatal(skip=args.on_bad_image == "skip"))
