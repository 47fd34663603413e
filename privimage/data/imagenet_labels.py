"""The labels of ImageNet's validation images where they lie in one heap: the development kit's, or Kaggle's table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from privimage.data.imagenet_classes import wnid_of_devkit_id
from privimage.data.messages import shown
from privimage.data.record import BadImage, printable
from privimage.data.tree import Tree, open_tree
from privimage.errors import UserError

DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH, SOLUTION = "ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv"
TRUTHS = (TRUTH, f"data/{TRUTH}", f"{DEVKIT}/data/{TRUTH}")
STEM = re.compile(r"ILSVRC2012_val_\d{8}", re.ASCII)
WNID = re.compile(r"n\d{8}", re.ASCII)


def validation_labels(root: Path, tree: Tree, where: str) -> tuple[dict[str, str], str]:
    """WordNet ids of validation images by name without ending, and the name of the file that tells them.

    The numbers of the development kit are ILSVRC2012_IDs, whatever else lies beside them: they are looked up in the
    table of classes. ``tree`` is what lies at ``root``, ``where`` the place of the images, for messages.

    Raises:
        UserError: if there is no such file, or it is damaged.
    """
    for name in TRUTHS:
        if tree.has(name):
            return _by_number(_lines(tree, name)), TRUTH
    archive = root / f"{DEVKIT}.tar.gz"
    if archive.is_file() and (devkit := open_tree(archive)).has(TRUTHS[-1]):
        return _by_number(_lines(devkit, TRUTHS[-1])), TRUTH
    if tree.has(SOLUTION):
        return _by_name(_lines(tree, SOLUTION)), SOLUTION
    raise UserError(
        f"{printable(where)} has no folders of classes, and no file tells its labels; expected {TRUTH} of "
        f"{DEVKIT}.tar.gz (image-net.org), or {SOLUTION} of Kaggle, in {shown(root)}."
    )


def _lines(tree: Tree, name: str) -> Iterator[tuple[int, str]]:
    try:
        text = tree.read(name).decode("utf-8-sig", "replace")
    except (BadImage, OSError) as error:
        raise UserError(f"{printable(tree.called(name))} cannot be read ({error}); copy it anew.") from None
    return enumerate(text.splitlines(), 1)


def _by_number(lines: Iterator[tuple[int, str]]) -> dict[str, str]:
    """The development kit's list: an ILSVRC2012_ID a line, the first of image 1."""
    wnids = wnid_of_devkit_id()
    labels = {}
    for number, line in lines:
        value = int(line) if re.fullmatch(r"\s*\d{1,4}\s*", line, re.ASCII) else 0
        if not 1 <= value <= len(wnids):
            raise UserError(
                f"{TRUTH}, line {number}: got '{printable(line[:40])}'; expected a number from 1 to {len(wnids)}, copy "
                "the file anew."
            )
        labels[f"ILSVRC2012_val_{number:08}"] = wnids[value - 1]
    return labels


def _by_name(lines: Iterator[tuple[int, str]]) -> dict[str, str]:
    """Kaggle's table: ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``, the class and its boxes."""
    labels = {}
    for number, line in lines:
        stem, _, told = line.partition(",")
        wnid = told.split(" ")[0]
        if number == 1 and stem == "ImageId":
            continue
        if not STEM.fullmatch(stem) or not WNID.fullmatch(wnid) or stem in labels:
            raise UserError(
                f"{SOLUTION}, line {number}: got '{printable(line[:80])}'; expected each image once, as in "
                "`ILSVRC2012_val_00048981,n03995372 85 1 499 272`, copy the file anew."
            )
        labels[stem] = wnid
    return labels
