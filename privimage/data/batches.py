"""Batches of square RGB images as CIFAR and Downsampled ImageNet store them: a row an image, its red plane first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from privimage.data.record import printable
from privimage.errors import UserError


def side(shape: tuple[int, ...], dtype: np.dtype, where: str) -> int:
    """The side S of the images of an array [N, 3 * S * S].

    Raises:
        UserError: if the array is no such one.
    """
    length = math.isqrt(shape[1] // 3) if len(shape) == 2 else 0
    if dtype != np.uint8 or not length or shape[1] != 3 * length**2:
        raise UserError(
            f"{where} holds an array of shape {list(shape)} and type {dtype}; expected uint8 of shape [N, 3 * S * S], "
            "a row an image: fetch it anew."
        )
    return length


def square_rgb(row: np.ndarray, length: int) -> np.ndarray:
    """Shapes: uint8 [3 * S * S], planes red, green, blue -> uint8 [S, S, 3]."""
    return np.ascontiguousarray(row.reshape(3, length, length).transpose(1, 2, 0))


def images(batch: Mapping[str, Any], where: str) -> np.ndarray:
    """The pixels of an unpickled batch, uint8 [N, 3 * S * S].

    Raises:
        UserError: if it has none.
    """
    data = batch.get("data")
    if not isinstance(data, np.ndarray):
        raise UserError(f"{where} has no array `data`; expected the pixels there, fetch it anew.")
    side(data.shape, data.dtype, where)
    return data


def labels(found: Any, count: int, first: int, last: int, where: str) -> np.ndarray:
    """A list or array of labels as int64 [count], counted from 0.

    Raises:
        UserError: if they are no whole numbers from ``first`` to ``last``, or not as many as there are images.
    """
    if isinstance(found, list) and all(type(label) is int for label in found):
        found = np.array(found, np.int64)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu" or found.ndim != 1:
        raise UserError(f"{where} has no list of labels that are whole numbers; fetch it anew.")
    if len(found) != count:
        raise UserError(f"{where} has {len(found)} labels and {count} images; expected one for each, fetch it anew.")
    numbers = found.astype(np.int64)
    outside = np.flatnonzero((numbers < first) | (numbers > last))
    if len(outside):
        raise UserError(
            f"{where} has the label {found[outside[0]]} at image {outside[0]}; expected {first} to {last}: is it the "
            "file of another set?"
        )
    return numbers - first


def texts(found: Any, where: str) -> tuple[str, ...]:
    """A list of names as texts.

    Raises:
        UserError: if it is no such list.
    """
    if not isinstance(found, list) or not found or not all(isinstance(name, (str, bytes)) for name in found):
        raise UserError(f"{where} has no list of class names; fetch it anew.")
    return tuple(name if isinstance(name, str) else printable(name.decode("latin1")) for name in found)
