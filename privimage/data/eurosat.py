"""EuroSAT in RGB (Helber et al. 2019): 27,000 satellite images of 64 x 64 pixels in ten classes, one folder for each.

The release has no split of its own. Its images are numbered from 1 in each class, and image n is for testing where n
modulo 27 is below 4: a constant of each image alone, whichever others are there. Of the full release that makes 22,983
to train with and 4,017 for testing; published benchmarks use 23,000 and 4,000.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from privimage.data.classes import in_declared_order
from privimage.data.record import Collection, Problem, Record, printable
from privimage.data.tree import Tree, open_tree
from privimage.errors import UserError
from privimage.settings import Source

CLASSES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential",
    "River", "SeaLake",
)  # fmt: skip
WRAPPERS = ("2750", "EuroSAT", "EuroSAT_RGB", "EuroSAT_MS", "EuroSATallBands")  # what the releases unpack to
CYCLE, HELD_OUT = 27, 4
NUMBERED = re.compile(r"([A-Za-z]+)_(\d{1,9})\.\w+", re.ASCII)
SPECTRAL = (".tif", ".tiff")
LISTS = (".csv", ".json", ".txt", ".md")  # what some copies hold beside the folders of classes


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of ``source.path`` (or ``data/eurosat``), a folder or an archive; the split is a rule of each number.

    Raises:
        UserError: if the folders are not EuroSAT's classes or the declared ones, or hold the spectral bands.
    """
    tree = _root(open_tree(Path(source.path or f"data/{source.source}")))
    found = tree.folders()
    strangers = [name for name in found if name not in CLASSES]
    if strangers or not found:
        told = f"has the folders {', '.join(map(printable, strangers[:5]))}" if strangers else "has no folders"
        raise UserError(f"{tree.where} {told}; expected EuroSAT's classes: {', '.join(CLASSES)}.")
    first = next((item for item in tree.files() if isinstance(item, str) and "/" in item), "")
    if first.lower().endswith(SPECTRAL):
        raise UserError(
            f"{tree.where} holds {printable(first)}, an image of spectral bands; the RGB release is needed "
            "(EuroSAT.zip or EuroSAT_RGB.zip, of .jpg files)."
        )
    names = in_declared_order(found, source, class_names, tree.where)
    return Collection(f"EuroSAT, {len(names)} folders in a {tree.form}", names, partial(_items, tree, names))


def _root(tree: Tree) -> Tree:
    """The folder of the classes' folders, which is the tree itself or lies within the folders of a release."""
    for _ in range(2):
        found = tree.folders()
        wrapper = next((name for name in WRAPPERS if name in found), None)
        if wrapper is None or any(name in CLASSES for name in found):
            return tree
        tree = tree.sub(wrapper)
    return tree


def _items(tree: Tree, names: Sequence[str]) -> Iterator[Record | Problem]:
    for item in tree.files():
        if isinstance(item, Problem):
            yield item
        elif "/" in item or not item.lower().endswith(LISTS):
            yield _item(tree, names, item)


def _item(tree: Tree, names: Sequence[str], path: str) -> Record | Problem:
    folder, _, name = path.rpartition("/")
    called = tree.called(path)
    if folder not in names:
        return Problem(called, "it lies in no class's folder", "move it into one, or away")
    if name.lower().endswith(SPECTRAL):
        return Problem(called, "an image of spectral bands", "put the RGB release's in its place, or remove it")
    match = NUMBERED.fullmatch(name)
    if not match or match[1] != folder:
        return Problem(
            called, f"expected a name like {folder}_1.jpg, whose number decides the split", "rename or remove it"
        )
    split = "test" if int(match[2]) % CYCLE < HELD_OUT else "train"
    return Record(called, names.index(folder), split, partial(tree.read, path))
