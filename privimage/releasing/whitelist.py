"""What may be in a release: every file, key, column, chunk and attribute by name. Anything else is refused.

The same lists are held against the artifacts that a release is made from and against the finished folder.
"""

from __future__ import annotations

import html
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from privimage.artifacts import ArtifactError, reading
from privimage.diffusion.autoencoder_settings import AutoencoderSettings
from privimage.generators import GENERATORS, settings_of
from privimage.releasing.places import place_in
from privimage.schema import ConfigError, build
from privimage.settings import (
    FinetuneSettings,
    PretrainSettings,
    QuerySettings,
    SampleSettings,
    SelectSettings,
)

Keys = Mapping[str, Any]  # key -> what may stand in it: None a plain value, another mapping, a list of one mapping

TRAINED = tuple(dict.fromkeys(settings_of(name, "finetune", FinetuneSettings) for name in GENERATORS))
NETWORKS = tuple(dict.fromkeys(type(settings_of(name, "pretrain", PretrainSettings)().network) for name in GENERATORS))
SETTINGS = {"query": (QuerySettings,), "select": (SelectSettings,), "finetune": TRAINED, "sample": (SampleSettings,)}
SEEDED = ("select", "sample")  # stages whose settings name their seed too
PARENTS = {"query": ("classifier",), "select": ("public", "query"), "sample": ("weights", "pretrained"),
           "finetune": ("pretrained", "subset", "query", "weights", "public")}  # fmt: skip


def _provenance(value: Any, where: str) -> None:
    """A stage, its version and its settings, each of them known, and hashes of public or released files."""
    if value is None:
        return
    _keys(value, dict.fromkeys(("stage", "stage_version", "settings", "parents", "privimage"), _any), where)
    for key in ("stage", "stage_version", "privimage"):
        _plain(value.get(key), f"{where}.{key}")
    stage, settings, parents = value.get("stage"), value.get("settings", {}), value.get("parents", {})
    if stage not in SETTINGS:
        raise ArtifactError(f"{where} names the stage {stage!r}; expected one of {', '.join(SETTINGS)}.")
    _mapping(settings, f"{where}.settings")
    given = {key: v for key, v in settings.items() if not (key == "seed" and stage in SEEDED and isinstance(v, int))}
    _built(SETTINGS[stage], given, f"{where}.settings")
    _keys(parents, dict.fromkeys(PARENTS[stage]), f"{where}.parents")
    for name, sha in parents.items():
        if not re.fullmatch(r"[0-9a-f]{64}", str(sha)):
            raise ArtifactError(f"{where}.parents.{name} is {sha!r}; expected the SHA-256 of a file.")


def _network(value: Any, where: str) -> None:
    shape = dict.fromkeys(("resolution", "channels", "num_labels"))
    _keys(value, {"settings": _any, **shape, "autoencoder": {"settings": _any, "channels": None}}, where)
    _built(NETWORKS, value.get("settings", {}), f"{where}.settings")
    if "autoencoder" in value:
        build(AutoencoderSettings, value["autoencoder"].get("settings", {}), f"{where}.autoencoder.settings")


def _built(kinds: tuple[type, ...], value: Any, where: str) -> None:
    """Return if these are settings of one of the kinds; the error is the first kind's."""
    for kind in reversed(kinds):
        try:
            build(kind, value, where)
        except ConfigError:
            if kind is kinds[0]:
                raise
        else:
            return


def _synthetic(value: Any, where: str) -> None:
    if value != "synthetic":
        raise ArtifactError(f"{where} is {value!r}; expected `synthetic`: only synthetic images leave.")


def _any(value: Any, where: str) -> None:
    """Checked by whoever named it."""


def _by_class(value: Any, where: str) -> None:
    """A mapping whose keys are class names."""
    _mapping(value, where)
    for name, item in value.items():
        _plain(name, where)
        _plain(item, f"{where}.{name}")


EVENT = dict.fromkeys(("mechanism", "noise_multiplier", "sampling_probability", "num_steps"))
STATEMENT: Keys = {
    **dict.fromkeys(("epsilon", "delta", "target_epsilon", "neighboring_relation", "epsilon_replace_one")),
    **dict.fromkeys(("images_per_unit", "epsilon_per_unit", "num_images", "private", "not_covered", "sha256")),
    "events": [EVENT],
    "accountants": [dict.fromkeys(("name", "version", "value"))],
    "provenance": _provenance,
}
SUBSET: Keys = {"policy": None, "classes": _by_class, "provenance": _provenance, "sha256": None}
QUERY: Keys = {
    **dict.fromkeys(("class_names", "public_class_names", "top_k", "sensitivity", "private", "sha256")),
    "histogram": _any,  # released as it is; the card repeats none of it
    "event": EVENT,
    "provenance": _provenance,
}
IMAGES: Keys = {"class_names": None, "source": _synthetic, "counts": None, "provenance": _provenance}
MODEL: Keys = {
    "kind": None,
    "network": _network,
    "facts": {"class_names": None},
    "provenance": _provenance,
    "sha256": None,
}
POPULATION: Keys = {**MODEL, "network": dict.fromkeys(("resolution", "channels", "num_labels"))}
CLASSES: Keys = {"classes": [dict.fromkeys(("label", "name", "folder"))]}
FRONT_MATTER: Keys = {
    **dict.fromkeys(("license", "pretty_name", "task_categories", "tags", "size_categories")),
    "configs": [{"config_name": None, "data_files": [dict.fromkeys(("split", "path"))]}],
}

DATASETS, ATTRIBUTES = {"images", "labels"}, {"metadata"}  # of HDF5
CHUNKS = (b"IHDR", b"IDAT", b"IEND")  # of PNG: no text, no time, no profile
COLUMNS = {"image.bytes", "image.path", "label"}  # of Parquet
SCHEMA_METADATA = {b"huggingface"}
TENSORS = r"(raw|ema)\.[\w.]+"
AUTOENCODER = r"autoencoder\.[\w.]+"  # of public images, beside a model of latents
MEMBER = r"train/[^/\\]+/\d+\.png"  # of the zip
PARQUET = r"data/train-\d{5}-of-\d{5}\.parquet"


def check_json(path: Path, keys: Keys) -> None:
    """Return if the file's JSON has no other keys, at any depth, and names no place on a machine.

    Raises:
        ArtifactError: if it does, or cannot be read.
    """
    with reading(path):
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    _keys(value, keys, Path(path).name)


def check_hdf5(path: Path) -> None:
    """Return if the file holds images, labels and their known metadata, and nothing else."""
    import h5py

    from privimage.hdf5_arrays import array

    with reading(path), h5py.File(path, "r") as file:
        _names(file, DATASETS, f"{path}: data set")
        _names(file.attrs, ATTRIBUTES, f"{path}: attribute")
        for name in DATASETS:
            _names(array(file, name).attrs, (), f"{path}: attribute of `{name}`")
        metadata = json.loads(file.attrs["metadata"])
    _keys(metadata, IMAGES, Path(path).name)


def check_safetensors(path: Path) -> None:
    """Return if the file holds what a private stage may have made, by its kind, and its known metadata only."""
    from safetensors import safe_open

    with reading(path), safe_open(path, framework="np") as file:
        _names(file.metadata(), {"privimage"}, f"{path}: metadata key")
        metadata, names = json.loads(file.metadata()["privimage"]), set(file.keys())
    if metadata.get("kind") == "population":  # synthetic images, from which those of the release are taken
        _keys(metadata, POPULATION, Path(path).name)
        _names(names, DATASETS, f"{path}: tensor")
        return
    _keys(metadata, MODEL, Path(path).name)
    if "autoencoder" in metadata.get("network", {}):
        names = {name for name in names if not re.fullmatch(AUTOENCODER, name)}
    strange = {name for name in names if not re.fullmatch(TENSORS, name)}
    strange |= {name for name in names - strange if {f"raw.{name[4:]}", f"ema.{name[4:]}"} - names}
    if strange:
        raise ArtifactError(f"{path} has a tensor `{min(strange)}`; expected raw and averaged weights of one network.")


def check_png(content: bytes, where: str) -> None:
    """Return if the PNG has an image and nothing beside it.

    Raises:
        ArtifactError: if it has another chunk, or bytes after its end.
    """
    position, kind = 8, b""
    while position < len(content) and kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", content, position)
        if kind not in CHUNKS:
            raise ArtifactError(f"{where} has a PNG chunk {kind.decode('latin-1')!r}; expected pixels alone.")
        position += 12 + size
    if kind != b"IEND" or position != len(content):
        raise ArtifactError(f"{where} does not end where its picture ends.")


def check_zip(path: Path, folders: Iterable[str]) -> None:
    """Return if every member is a bare PNG in one of the class folders, without comments or extra fields."""
    known = set(folders)
    with reading(path), zipfile.ZipFile(path) as archive:
        if archive.comment:
            raise ArtifactError(f"{path} has a comment; expected none.")
        for member in archive.infolist():
            name = member.filename
            if not re.fullmatch(MEMBER, name) or name.split("/")[1] not in known or member.comment or member.extra:
                raise ArtifactError(f"{path} has a member `{name}`; expected `train/<class>/<index>.png` alone.")
            check_png(archive.read(member), f"{path}: {name}")


def check_parquet(path: Path) -> None:
    """Return if the file holds bare PNGs, their names and labels, and no metadata but their types."""
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        _names(file.metadata.metadata or {}, SCHEMA_METADATA, f"{path}: metadata key")
        _names({file.schema.column(index).path for index in range(len(file.schema))}, COLUMNS, f"{path}: column")
        for batch in file.iter_batches(batch_size=1000, columns=["image"]):
            images = batch.column("image")
            for content, name in zip(images.field("bytes"), images.field("path")):
                if not re.fullmatch(r"\d+\.png", str(name)):
                    raise ArtifactError(f"{path} has an image named {name}; expected `<index>.png`.")
                check_png(content.as_py(), f"{path}: {name}")


def check_folder(folder: Path) -> None:
    """Return if the release holds the files that it must, and each of them what it may.

    Raises:
        ArtifactError: if a file is missing or not on the list, or holds what is not.
    """
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    shards = {name for name in found if re.fullmatch(PARQUET, name)}
    _names(found, {*FILES, *shards}, f"{folder}: file")
    missing = sorted({*FILES} - found) or ([] if shards else ["data/*.parquet"])
    if missing:
        raise ArtifactError(f"{folder} has no {missing[0]}; a release is whole or absent.")
    for name in sorted(found):
        FILES.get(name, check_parquet)(folder / name)


def _keys(value: Any, allowed: Any, where: str) -> None:
    """Return if the value has only the keys that are allowed, at any depth, and its texts name no place."""
    if callable(allowed):
        allowed(value, where)
    elif allowed is None:
        _plain(value, where)
    elif isinstance(allowed, list):
        if not isinstance(value, list):
            raise ArtifactError(f"{where} is no list.")
        for item in value:
            _keys(item, allowed[0], where)
    else:
        _mapping(value, where)
        _names(value, allowed, f"{where}: key")
        for key, item in value.items():
            _keys(item, allowed[key], f"{where}: {key}")


def _mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ArtifactError(f"{where} is no section of named values.")


def _plain(value: Any, where: str) -> None:
    """Return if it is a number, a truth value, or text that names no place on a machine, or a list of these."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, (Mapping, list)):
            raise ArtifactError(f"{where} holds {item!r:.60}; expected a plain value.")
        if isinstance(item, str):
            _text(item, where)


def _text(text: str, where: str) -> None:
    if place := place_in(text):
        raise ArtifactError(f"{where} names a place, {place!r}; no path leaves with a release.")


def _names(found: Iterable[str | bytes], allowed: Iterable[str | bytes], what: str) -> None:
    strange = sorted(set(found) - set(allowed))
    if strange:
        name = strange[0].decode("latin-1") if isinstance(strange[0], bytes) else strange[0]
        raise ArtifactError(f"{what} `{name}` is not on the list of what may leave; remove it, or rerun what wrote it.")


def _check_card(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    _keys(yaml.safe_load(front), FRONT_MATTER, path.name)
    _text(html.unescape(re.sub(r"\\([^\w\s]|_)", r"\1", body)), path.name)  # as it is read, without Markdown's escapes


def _check_images_zip(path: Path) -> None:
    with reading(path):
        listed = json.loads((path.parent / "classes.json").read_text(encoding="utf-8"))["classes"]
    check_zip(path, [entry["folder"] for entry in listed])


def _check_sums(path: Path) -> None:
    """Each line is a hash and a name, and every other file of the folder has its line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names = [match.group(1) for line in lines if (match := re.fullmatch(r"[0-9a-f]{64}  (\S+)", line))]
    root = path.parent
    wanted = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and p.name != path.name}
    if path.name == "SHA256SUMS" and (len(names) != len(lines) or {*names} != wanted):
        raise ArtifactError(f"{path} does not list exactly the other files.")
    if path.name != "SHA256SUMS" and names != ["images.h5"]:
        raise ArtifactError(f"{path} is not the checksum of images.h5.")


FILES: dict[str, Callable[[Path], None]] = {
    "README.md": _check_card,
    "SHA256SUMS": _check_sums,
    "classes.json": lambda path: check_json(path, CLASSES),
    "images.h5": check_hdf5,
    "images.h5.sha256": _check_sums,
    "images.zip": _check_images_zip,
    "model.safetensors": check_safetensors,
    "privacy.json": lambda path: check_json(path, STATEMENT),
    "samples.png": lambda path: check_png(path.read_bytes(), str(path)),
}
