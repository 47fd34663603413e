"""Which columns of a Parquet table hold the images and the labels, and what the labels' numbers mean."""

from __future__ import annotations

import json

import pyarrow as pa

from privimage.data.label_rows import LABEL_COLUMNS
from privimage.data.record import printable
from privimage.errors import UserError

IMAGE_NAMES = ("image", "img", "images", "picture")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


def image_column(schema: pa.Schema, name: str) -> pa.Field:
    """The column of image files: by its name, else the only one that could be it. ``name`` is the table's.

    Raises:
        UserError: if there is none, or no telling which.
    """
    fitting = [field for field in schema if _holds_files(field.type)]
    by_name = [field for wanted in IMAGE_NAMES for field in schema if field.name == wanted]
    if by_name and by_name[0] in fitting:
        return by_name[0]
    if len(fitting) == 1 and not by_name:
        return fitting[0]
    got = printable(", ".join(f"{field.name}: {field.type}" for field in schema))[:400] or "none"
    raise UserError(
        f"{printable(name)} has the columns {got}; expected one of image files, called image, of type binary or "
        "struct<bytes: binary, path: string>: rename it, or store image files in it."
    )


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_files(kind.field(place).type) and not pa.types.is_struct(kind.field(place).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def label_column(schema: pa.Schema, features: dict[str, tuple[str, ...]], image: str, name: str) -> pa.Field | None:
    """The labels' column by its name, else the only one whose classes the metadata name, else by a rarer name.

    Raises:
        UserError: if several columns fit alike, or it holds neither whole numbers nor texts.
    """
    fields = {field.name.lower(): field for field in schema if field.name != image}
    if len(fields) + 1 < len(schema):
        raise UserError(f"{printable(name)} has two columns of one name, or that differ in case alone; rename one.")
    by_name, noted, rarer = (
        [column for column in known if column in fields]
        for known in (LABEL_NAMES, [column.lower() for column in features], LABEL_COLUMNS)
    )
    candidates = by_name or noted or rarer
    if not candidates:
        return None
    if not by_name and len(noted) > 1:
        raise UserError(
            f"{printable(name)} has several columns of classes ({printable(', '.join(candidates))}); expected one, "
            "called label: rename it."
        )
    field = fields[candidates[0]]
    if not (is_text(field.type) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)):
        raise UserError(
            f"{printable(name)} has labels {printable(field.name)} of type {printable(str(field.type))[:80]}; expected "
            "whole numbers or texts: one label an image."
        )
    return field


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are texts, also where each is stored once."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def features(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The columns whose numbers have names, as the package ``datasets`` notes them."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {c: f["names"] for c, f in noted.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # none, or somebody else's metadata
    good = {column: names for column, names in found.items() if isinstance(names, list) and names}
    return {column: tuple(map(str, names)) for column, names in good.items()}
