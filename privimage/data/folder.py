"""Image files in folders: one sub-folder a class, or one flat folder where a single class is declared.

Sub-folders ``train`` and ``test`` are the split where both exist; otherwise each image's own bytes decide, so that no
image's part depends on another image. Names that begin with a point are skipped, and so are files beside the folders
of classes. Of an animation the first frame counts; transparent pixels become black.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from privimage.artifacts import ImageSet
from privimage.data.square import square
from privimage.errors import UserError
from privimage.progress import progress
from privimage.settings import Source

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
NAMED = 10  # bad files that an error names


def read(source: Source, class_names: Sequence[str] | None = None) -> tuple[ImageSet, ImageSet]:
    """The folder's training images and test images; the labels follow ``class_names`` where they are declared.

    Raises:
        UserError: if the folders are not the classes, a file is no image that can be read, or a split is empty.
    """
    root = Path(source.path or "")
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; `path` must name one that holds the images.")
    split = (root / "train").is_dir() and (root / "test").is_dir()
    names = _class_names(root / "train" if split else root, source, class_names)
    if split:
        _class_names(root / "test", source, names)
        files = [(part == "test", *item) for part in ("train", "test") for item in _files(root / part, names)]
    else:
        files = [(None, *item) for item in _files(root, names)]
    return _split(files, names, source)


def _class_names(folder: Path, source: Source, declared: Sequence[str] | None) -> tuple[str, ...]:
    found = tuple(sorted(entry.name for entry in _visible(folder) if entry.is_dir()))
    if declared is not None:
        if sorted(declared) != list(found) and not (len(declared) == 1 and not found):
            listed = ", ".join(f'"{name}"' for name in found)
            raise UserError(
                f"{folder} has the class folders {list(found)}; expected {sorted(declared)}, as declared. "
                f"If the folders are right, write `class_names: [{listed}]`."
            )
        return tuple(declared)
    if not found or source.num_classes not in (None, len(found)):
        raise UserError(
            f"{folder} has {len(found)} class folders; expected {source.num_classes}, the row's `num_classes`."
        )
    return found


def _files(folder: Path, names: tuple[str, ...]) -> list[tuple[int, Path]]:
    """Labels and files, sorted."""
    if not any(entry.is_dir() for entry in _visible(folder)):
        return [(0, path) for path in _visible(folder)]
    return [(label, path) for label, name in enumerate(names) for path in _visible(folder / name)]


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _split(
    files: Sequence[tuple[bool | None, int, Path]], names: tuple[str, ...], source: Source
) -> tuple[ImageSet, ImageSet]:
    images = np.empty((len(files), source.resolution, source.resolution, source.channels), np.uint8)
    labels = np.array([label for _, label, _ in files], np.int64)
    is_test = np.zeros(len(files), bool)
    bad = []
    for index, (in_test, _, path) in enumerate(progress(files, "folder", len(files))):
        try:
            content = path.read_bytes()
            images[index] = square(_decode(content), source)
        except Exception as error:  # Pillow's decoders raise errors of many kinds; all mean a bad file
            bad.append(f"{path} ({error or type(error).__name__})")
            continue
        is_test[index] = _falls_to_test(content, source.test_fraction) if in_test is None else in_test
    if bad:
        more = f", and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise UserError(
            f"{len(bad)} files are no images that can be read: {', '.join(bad[:NAMED])}{more}; mend or remove them."
        )
    if is_test.all() or not is_test.any():
        raise UserError(
            f"{source.path} gave {np.sum(~is_test)} training images and {np.sum(is_test)} test images; "
            "expected some of both: give it sub-folders `train` and `test`, or more images."
        )
    return (
        ImageSet(images[~is_test], labels[~is_test], names, source.source),
        ImageSet(images[is_test], labels[is_test], names, source.source),
    )


def _falls_to_test(content: bytes, test_fraction: float) -> bool:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") < test_fraction * 2**64


def _decode(content: bytes) -> Image.Image:
    """The image upright, in mode L or RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content))
        if image.mode not in MODES:
            raise ValueError(f"mode {image.mode}; expected 8 bits a channel, convert it")
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
