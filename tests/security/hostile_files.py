"""Sets of images that were made to harm whoever reads them. Each builds itself, with its canary outside.

The value of a case is (build, told): ``build(root, outside)`` returns the path to read, ``told`` is what the sentence
about it must contain, None where the set is taken and the harm is not.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle  # noqa: TID251 - to write what must be refused
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bad_inputs import chunk, claimed_png, good, member, noise, png, tarred, zipped
from canary import Outside, Payload, pickled
from PIL import PngImagePlugin

Build = Callable[[Path, Outside], Path]
CASES: dict[str, tuple[Build, str | None, dict]] = {}
SCRIPT = "<script>alert(4711)</script>"
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2
BOMB = 20_000_000
SLOW = {"tar.gz: a bomb"}


def case(name: str, told: str | None, **settings):
    """Register a case; ``settings`` go into the source."""

    def register(build: Build) -> Build:
        CASES[name] = (build, told, settings)
        return build

    return register


def image(name: str, told: str | None, content: Callable[[Outside], bytes], file: str = "bad.png") -> None:
    """A case of one file among good ones."""

    def build(root: Path, outside: Outside) -> Path:
        (good(root) / "cat" / file).write_bytes(content(outside))
        return root

    CASES[name] = (build, told, {})


# Pickles wherever a file of a user's is read.
image("a pickle called .png", "not an image", pickled)


@case("npy: a pickle of objects", "never Python objects")
def _(root, outside):
    root.mkdir()
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (20,)})
    (root / "images.npy").write_bytes(head.getvalue() + pickled(outside))
    return root / "images.npy"


@case("npz: a pickle of objects", "never Python objects")
def _(root, outside):
    root.mkdir()
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|O", "fortran_order": False, "shape": (20,)})
    np.savez(root / "a.npz", images=PIXELS)
    with zipfile.ZipFile(root / "a.npz", "a") as archive:
        archive.writestr("labels.npy", head.getvalue() + pickled(outside))
    return root / "a.npz"


@case("npy: a header that is a program", "no array that can be read")
def _(root, outside):
    root.mkdir()
    text = f"{{'descr': __import__('os').mkdir({str(outside.marker)!r}), 'fortran_order': False, 'shape': (20,)}}\n"
    body = text.encode().ljust(310)
    (root / "images.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
    return root / "images.npy"


def batches(root: Path, content: bytes) -> Path:
    root.mkdir()
    for number in range(1, 11):
        (root / f"train_data_batch_{number}").write_bytes(content)
    (root / "val_data").write_bytes(content)
    return root


ROWS = {"data": PIXELS.reshape(20, -1), "labels": LABELS.tolist()}
for _name, _told, _content in (
    ("a pickle that calls", "not a pickle of plain arrays", lambda outside: pickled(outside)),
    ("a pickle of protocol 0 that calls", "not a pickle of plain arrays", lambda outside: pickled(outside, 0)),
    (
        "a pickle whose label calls",
        "not a pickle of plain arrays",
        lambda outside: pickle.dumps({**ROWS, "labels": [Payload(outside.marker)]}),
    ),
    (
        "a pickle that imports by INST",
        "not a pickle of plain arrays",
        lambda outside: f"(S'{outside.marker}'\nios\nmkdir\n.".encode(),
    ),
    (
        "a pickle with an extension code",
        "not a pickle of plain arrays",
        lambda outside: b"\x80\x02\x82\x01)R.",
    ),
):
    CASES[f"batch: {_name}"] = (
        lambda root, outside, content=_content: batches(root, content(outside)),
        _told,
        {"source": "imagenet-downsampled", "num_classes": 1000},
    )


@case("CIFAR: a batch that calls", "the MD5 sum", source="cifar10", num_classes=10)
def _(root, outside):
    root.mkdir()
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch", "batches.meta"]:
        (root / name).write_bytes(pickled(outside))
    return root


for _ending in (".pt", ".pth", ".pkl", ".mat", ".joblib", ".safetensors"):

    @case(f"a pickle as {_ending}", "expected")
    def _(root, outside, ending=_ending):
        root.mkdir()
        (root / f"images{ending}").write_bytes(pickled(outside))
        return root / f"images{ending}"


# HDF5 that leads elsewhere.
def hdf5(name: str, told: str, fill: Callable[[h5py.File, Outside], None]) -> None:
    def build(root: Path, outside: Outside) -> Path:
        root.mkdir()
        with h5py.File(outside.folder / "other.h5", "w") as file:
            file["images"], file["labels"] = PIXELS, LABELS
        with h5py.File(root / "a.h5", "w") as file:
            fill(file, outside)
            for key, value in (("images", PIXELS), ("labels", LABELS)):
                if file.get(key, getlink=True) is None:
                    file[key] = value
        return root / "a.h5"

    CASES[f"HDF5: {name}"] = (build, told, {})


def external(file, outside):
    place = [(str(outside.file), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("images", (3, 4, 4, 3), np.uint8, external=place)


def virtual(file, outside):
    layout = h5py.VirtualLayout(PIXELS.shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(outside.folder / "other.h5"), "images", PIXELS.shape)
    file.create_virtual_dataset("images", layout)


def elsewhere(file, outside):
    file["images"] = h5py.ExternalLink(str(outside.folder / "other.h5"), "images")


def part_elsewhere(file, outside):
    file["train"] = h5py.ExternalLink(str(outside.folder / "other.h5"), "/")


def objects(file, outside):
    file.create_dataset("images", data=np.void(pickled(outside)))


def reference(file, outside):
    file["x"] = PIXELS
    file.create_dataset("images", (20,), h5py.ref_dtype)[0] = file["x"].ref


hdf5("a link to another file", "link to elsewhere", elsewhere)
hdf5("a part that lies in another file, which nobody asks for", None, part_elsewhere)
hdf5("pixels in another file", "lies in other files", external)
hdf5("a virtual array of another file", "lies in other files", virtual)
hdf5("a soft link", "link to elsewhere", lambda file, outside: file.__setitem__("images", h5py.SoftLink("/labels")))
hdf5("a pickle as opaque bytes", "plain numbers|single value", objects)
hdf5("references to objects", "plain numbers", reference)


# Parquet.
@case("Parquet: an extension type that is a pickle", None)
def _(root, outside):
    root.mkdir()
    hostile = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled(outside)}
    files = pa.array([{"bytes": png(n), "path": f"{n}.png"} for n in range(20)])
    schema = pa.schema([pa.field("image", files.type, metadata=hostile), pa.field("label", pa.int64())])
    pq.write_table(pa.table([files, pa.array(LABELS)], schema), root / "a.parquet")
    return root / "a.parquet"


@case("Parquet: metadata of pandas that is a pickle, and images by path", "not inside the file")
def _(root, outside):
    root.mkdir()
    rows = pa.array([{"bytes": None, "path": str(outside.file)} for _ in range(20)],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    table = pa.table({"image": rows, "label": LABELS})
    pq.write_table(table.replace_schema_metadata({b"pandas": pickled(outside)}), root / "a.parquet")
    return root / "a.parquet"


# Archives.
def through_link(outside: Outside) -> list:
    return [
        (member("cat/way", tarfile.SYMTYPE, str(outside.folder)), b""),
        (member("cat/way/evil.png"), png()),
    ]


def pax(outside: Outside) -> list:
    info = member("cat/x.png")
    info.pax_headers = {"path": f"../../{outside.folder.name}/evil.png"}
    return [(info, png())]


for _name, _told, _members in (
    ("a link, and a file beyond it", "way", through_link),
    ("a hard link to outside", "link.png", lambda o: [(member("cat/link.png", tarfile.LNKTYPE, str(o.file)), b"")]),
    ("a name in an extended header that climbs", "evil.png", pax),
    ("a device", "null.png", lambda o: [(member("cat/null.png", tarfile.BLKTYPE), b"")]),
    ("a pipe", "pipe.png", lambda o: [(member("cat/pipe.png", tarfile.FIFOTYPE), b"")]),
    ("a name with a line break and an escape", "x.png", lambda o: [(member("cat/a\n\x1b]0;owned\x07x.png"), b"no")]),
    ("a name that a shell would execute", "not an image", lambda o: [(member(f"cat/{o.shell}"[:99]), b"no image")]),
):
    CASES[f"tar: {_name}"] = (
        lambda root, outside, members=_members: Path(tarred(root / "a.tar", *members(outside))),
        _told,
        {},
    )


def to_outside(outside: Outside) -> list:
    info = zipfile.ZipInfo("cat/link.png")
    info.external_attr = 0o120777 << 16
    return [(info, str(outside.file).encode())]


for _name, _told, _members in (
    ("a name that climbs", "evil.png", lambda o: [(f"cat/../../{o.folder.name}/evil.png", png())]),
    ("an absolute name", "evil.png", lambda o: [(f"{o.folder}/evil.png", png())]),
    ("a name on another drive", "evil.png", lambda o: [("C:\\evil.png", png())]),
    ("a link to outside", "link.png", to_outside),
    ("a name with zero bytes", "evil|unsafe|zero|\\.png", lambda o: [("cat/evil.png\0.txt", b"no image")]),
    ("a name with an escape", "evil", lambda o: [("cat/\x1b[2Jevil.png", b"no image")]),
    ("a bomb in a bomb", "inner.zip", lambda o: [("cat/inner.zip", zlib.compress(bytes(10**7)))]),
):
    CASES[f"zip: {_name}"] = (
        lambda root, outside, members=_members: Path(zipped(root / "a.zip", *members(outside))),
        _told,
        {},
    )


@case("tar.gz: a bomb", "bomb.png|unpack")
def _(root, outside):
    root.mkdir()
    info = tarfile.TarInfo("cat/bomb.png")
    info.size = 400_000_000
    with gzip.open(root / "a.tar.gz", "wb", 9) as file:
        file.write(info.tobuf())
        for _ in range(400):
            file.write(bytes(1_000_000))
        file.write(bytes(1024 + -400_000_000 % 512))
    return root / "a.tar.gz"


# Images.
def with_text(outside: Outside) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", SCRIPT)
    info.add_itxt("XML:com.adobe.xmp", f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{outside.file}">]><x>&e;</x>')
    buffer = io.BytesIO()
    noise(3, (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def with_exif(outside: Outside) -> bytes:
    buffer = io.BytesIO()
    picture = noise(3, (8, 8))
    exif = picture.getexif()
    exif[0x010E] = SCRIPT
    picture.save(buffer, "JPEG", exif=exif, comment=f"$(touch {outside.marker})".encode())
    return buffer.getvalue()


def packed_text(outside: Outside) -> bytes:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(BOMB), 9))
    plain = png(3)
    return plain[:33] + text + plain[33:]


def profile_bomb(outside: Outside) -> bytes:
    plain = png(3)
    return plain[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(BOMB), 9)) + plain[33:]


def claimed_jpeg(outside: Outside) -> bytes:
    content = png(3, (16, 16), form="JPEG")
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", 65500, 65500) + content[place + 4 :]


def claimed_tiff(outside: Outside) -> bytes:
    tags = [(256, 4, 200_000), (257, 4, 200_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, 200_000), (279, 4, 8)]  # fmt: skip
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 8)  # the next page is the same one


def svg(outside: Outside) -> bytes:
    return (
        f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY e SYSTEM "file://{outside.file}">]>'
        f'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><image href="file://{outside.file}"/>&e;</svg>'
    ).encode()


def postscript(outside: Outside) -> bytes:
    return f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({outside.marker}) (w) file closefile\n".encode()


image("PNG: scripts and entities in its texts", None, with_text)
image("JPEG: a script in its EXIF, a command in its comment", None, with_exif, "bad.jpg")
image("PNG: a packed text of 20 MB", "cannot be decoded", packed_text)
image("PNG: a colour profile of 20 MB", "cannot be decoded", profile_bomb)
image("PNG: 20,000 x 20,000", "expected at most", lambda outside: claimed_png(20000, 20000, 10))
image("JPEG: 65,500 x 65,500", "expected at most", claimed_jpeg)
image("TIFF: 200,000 x 200,000, in a circle", "expected at most", claimed_tiff)
image("PPM: 100,000 x 100,000", "expected at most", lambda outside: b"P6 100000 100000 255\n" + bytes(9))
BITMAP = struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
image("BMP: 60,000 x 60,000", "expected at most", lambda outside: b"BM" + BITMAP)
image("SVG: a script and an entity", "not an image", svg)
image("EPS: a program that writes", "not an image", postscript)


# Names and labels.
@case("folder: class names that a shell would execute", None)
def _(root, outside):
    return good(root, (f"cat {outside.shell}"[:200], "-rf *", "--help", "it's; `id` & $(id) | tee > x"))


@case("folder: a class name that clears the screen", "printable")
def _(root, outside):
    return good(root, ("cat\x1b[2J\x1b]0;owned\x07", "dog"))


@case("folder: file names with escapes and line breaks", "not an image")
def _(root, outside):
    (good(root) / "cat" / "\x1b]0;owned\x07\nerror: all is well.png").write_bytes(b"no image")
    return root


@case("folder: a link to outside", "bad.png: not an image")
def _(root, outside):
    """Links are followed (sets of links are common), but to images alone, and what lies there is not told."""
    (good(root) / "cat" / "bad.png").symlink_to(outside.file)
    return root


def labelled(name: str, told: str | None, text: Callable[[Outside], str], file: str = "labels.csv") -> None:
    def build(root: Path, outside: Outside) -> Path:
        root.mkdir()
        for index in range(20):
            (root / f"{index}.png").write_bytes(png(index))
        (root / file).write_text(text(outside))
        return root

    CASES[f"labels: {name}"] = (build, told, {})


def table(cat: str) -> str:
    quoted = '"' + cat.replace('"', '""') + '"'
    return "file,label\n" + "".join(f"{n}.png,{quoted if n % 2 else 'dog'}\n" for n in range(20))


labelled("formulas", None, lambda outside: table("=cmd|' calc'!A0"))
labelled("commands", None, lambda outside: table(f"$(touch {outside.marker.name})`id`"))
labelled("HTML", None, lambda outside: table(SCRIPT.replace("/", "")))
labelled(
    "a row that climbs out", "secret.bin", lambda outside: table("cat") + f"../{outside.folder.name}/secret.bin,dog\n"
)
labelled("an absolute row", "secret.bin", lambda outside: table("cat") + f"{outside.file},dog\n")
labelled(
    "JSON of a hundred thousand levels",
    "is no JSON object",
    lambda outside: (
        "".join(json.dumps({"file_name": f"{n}.png", "label": "cd"[n % 2]}) + "\n" for n in range(20))
        + '{"file_name": '
        + "[" * 100_000
        + "\n"
    ),
    "metadata.jsonl",
)
labelled(
    "JSON with keys twice, NaN and a number of 5,000 digits",
    "metadata.jsonl",
    lambda outside: (
        "".join(json.dumps({"file_name": f"{n}.png", "label": "cd"[n % 2]}) + "\n" for n in range(20))
        + f'{{"file_name": "0.png", "file_name": "{outside.file}", "label": {"9" * 5000}, "label": NaN}}\n'
    ),
    "metadata.jsonl",
)


@case("folder: a pipe that would hang", "no regular file")
def _(root, outside):
    os.mkfifo(good(root) / "cat" / "bad.png")
    return root
