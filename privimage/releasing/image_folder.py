"""Labelled images as a zip of PNG files in a folder for each class: what torchvision and `imagefolder` read."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from privimage.artifacts import STRETCH, ImageSet, write_file

EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member: the same images give the same bytes
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # Windows
MAX_NAME = 80


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder's name for each class, safe on every system, and distinct where letters have no case.

    It is the class's own name where all of them allow that, else its number and what can be kept of the name.
    """
    safe = [re.sub(r"[^\w.+-]+", "_", name, flags=re.ASCII)[:MAX_NAME].strip(".") for name in class_names]
    lower = {name.lower() for name in safe}
    if len(lower) == len(safe) and "" not in lower and not RESERVED & {name.split(".")[0] for name in lower}:
        return safe
    return [f"{label:04}_{name}" for label, name in enumerate(safe)]


def member_name(index: int, num_images: int) -> str:
    """The file's name of one image; in order of names they are in order of indices."""
    return f"{index:0{max(5, len(str(num_images - 1)))}}.png"


def write_image_folder(path: Path, images: ImageSet, folders: Sequence[str]) -> None:
    """The zip exists: ``train/<class>/<index>.png``, stored and dated alike."""

    def fill(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for start in range(0, len(images.labels), STRETCH):
                for index, pixels in enumerate(images.images[start : start + STRETCH], start):
                    name = member_name(index, len(images.labels))
                    member = zipfile.ZipInfo(f"train/{folders[images.labels[index]]}/{name}", EPOCH)
                    member.create_system, member.external_attr = 3, 0o644 << 16
                    archive.writestr(member, png(pixels))

    write_file(path, fill)


def png(pixels: np.ndarray) -> bytes:
    """The image as a PNG. Shapes: uint8 [H, W, C] with C 1 or 3."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
