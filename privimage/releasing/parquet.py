"""Labelled images as Parquet, with the types that `datasets.load_dataset` reads from the file itself."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from privimage.artifacts import ImageSet, write_file
from privimage.releasing.image_folder import member_name

SHARD_BYTES = 400_000_000  # raw pixels of one file
GROUP_BYTES, GROUP_ROWS = 32_000_000, 1000  # of a row group: what is in memory at once


SCHEMA = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())])


def write_parquet(folder: Path, archive: Path, images: ImageSet, folders: Sequence[str]) -> None:
    """The files ``train-<k>-of-<n>.parquet`` exist; their PNGs are those of the zip of ``write_image_folder``."""
    total, each = len(images.labels), max(1, images.images[:1].nbytes)
    per_shard = max(1, SHARD_BYTES // each)
    starts = range(0, total, per_shard)
    with zipfile.ZipFile(archive) as pngs:
        for number, start in enumerate(starts):
            part = range(start, min(start + per_shard, total))
            tables = _groups(pngs, images, folders, part, max(1, min(GROUP_ROWS, GROUP_BYTES // each)))
            _write(folder / f"train-{number:05}-of-{len(starts):05}.parquet", tables, images.class_names)


def _write(path: Path, tables: Iterator[pa.Table], class_names: Sequence[str]) -> None:
    """The file holds the tables, each a row group, and no metadata but what `datasets` must know of the types."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(class_names), "_type": "ClassLabel"}}

    def fill(temporary: Path) -> None:
        with pq.ParquetWriter(
            temporary, SCHEMA, compression="none", write_statistics=False, store_schema=False
        ) as file:
            file.add_key_value_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            for table in tables:
                file.write_table(table)

    write_file(path, fill)


def _groups(
    pngs: zipfile.ZipFile, images: ImageSet, folders: Sequence[str], indices: range, rows: int
) -> Iterator[pa.Table]:
    """The images of a file, as tables of so many rows."""
    for start in range(indices.start, indices.stop, rows):
        part = range(start, min(start + rows, indices.stop))
        names = [member_name(index, len(images.labels)) for index in part]
        labels = images.labels[part.start : part.stop]
        found = [
            {"bytes": pngs.read(f"train/{folders[label]}/{name}"), "path": name} for name, label in zip(names, labels)
        ]
        yield pa.table({"image": found, "label": labels}, schema=SCHEMA)
