"""Bad sets of images: each builds itself in a folder and says what a user must be told about it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle  # noqa: TID251 - to write what must be refused
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image, TiffImagePlugin
from sets import noise

Case = tuple[Callable[[Path], str | None], str, dict]
CASES: dict[str, Case] = {}


def case(name: str, told: str, **settings):
    """Register a bad set: ``told`` is what its error must contain; ``settings`` go into the source."""

    def register(build):
        CASES[name] = (build, told, settings)
        return build

    return register


def png(seed: int = 0, size=(8, 8), channels: int = 3, **options) -> bytes:
    buffer = io.BytesIO()
    noise(seed, size, channels).save(buffer, options.pop("form", "PNG"), **options)
    return buffer.getvalue()


def good(root: Path, classes=("cat", "dog"), count: int = 12) -> Path:
    """A set in which nothing is wrong."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index:02}.png").write_bytes(png(100 * number + index))
    return root


def among(content: bytes, name: str = "bad.png"):
    """A good set with one more file in the class ``cat``."""

    def build(root: Path) -> None:
        (good(root) / "cat" / name).write_bytes(content)

    return build


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def claimed_png(width: int, height: int, rows: int) -> bytes:
    """A PNG that claims a size and holds so many black rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" * (width + 1)) for _ in range(rows)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animation(form: str) -> bytes:
    return png(1, form=form, save_all=True, append_images=[noise(2, (8, 8)), noise(3, (8, 8))])


# Single files among good ones.
for _name, _content, _told in (
    ("zero bytes", b"", "bad.png: the file is empty"),
    ("truncated PNG", png(1, (64, 64))[:-200], "bad.png: cannot be decoded"),
    ("truncated JPEG", png(1, (64, 64), form="JPEG")[:-400], "bad.png: cannot be decoded"),
    (
        "JPEG cut off and filled with zeros",
        png(1, (64, 64), form="JPEG")[:-400] + bytes(400),
        "bad.png: cannot be decoded",
    ),
    ("text with an image's name", b"no image", "bad.png: not an image"),
    ("HTML with an image's name", b"<html><script>alert(1)</script></html>", "bad.png: not an image"),
    ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "bad.png: not an image"),
    ("PDF", b"%PDF-1.7\n", "bad.png: not an image"),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "bad.png: not an image"),
    ("pickle with an image's name", pickle.dumps({"a": 1}), "bad.png: not an image"),
    ("only a signature", b"\x89PNG\r\n\x1a\n", "bad.png: "),
    ("bomb of 9,000 x 9,000", claimed_png(9000, 9000, 9000), "bad.png: 9000 x 9000 pixels; expected at most"),
    ("bomb of 20,000 x 20,000", claimed_png(20000, 20000, 10), "bad.png: .* pixels; expected at most 25000000"),
    ("claims more rows than it has", claimed_png(500, 500, 10), "bad.png: cannot be decoded"),
    ("animated GIF", animation("GIF"), "bad.png: an animation or stack of 3"),
    ("animated PNG", animation("PNG"), "bad.png: an animation or stack of 3"),
    ("animated WebP", animation("WEBP"), "bad.png: an animation or stack of 3"),
    ("TIFF of several pages", animation("TIFF"), "bad.png: an animation or stack of 3"),
    ("1 x 1", png(1, (1, 1)), "bad.png: 1 x 1 pixels; expected at least 4"),
    ("absurd aspect ratio", png(1, (400, 5)), "bad.png: 400 x 5 pixels; expected sides that differ at most 20-fold"),
    ("nested zip", b"PK\x03\x04", "bad.zip: an archive inside"),
):
    CASES[_name] = (among(_content, "bad.zip" if "nested" in _name else "bad.png"), _told, {})


def float_tiff(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


CASES["NaN in a TIFF"] = (among(float_tiff(np.full((8, 8), np.nan))), "bad.png: pixels that are not finite", {})
CASES["floats of 0 to 255 in a TIFF"] = (among(float_tiff(np.full((8, 8), 200))), "expected 0 to 1", {})


# Folders.
@case("no such path", "absent")
def _(root):
    return str(root / "absent")


@case("empty folder", "holds no image files")
def _(root):
    root.mkdir()


@case("one image only", "expected some of both")
def _(root):
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "0.png").write_bytes(png())


@case("an empty class", "the class folder holds no files")
def _(root):
    (good(root) / "eel").mkdir()


@case("a class that is not declared", 'write `class_names: \\["cat", "dog", "eel"\\]`', class_names=["cat", "dog"])
def _(root):
    good(root, ("cat", "dog", "eel"))


@case("a declared class without a folder", "as declared", class_names=["cat", "dog", "eel"])
def _(root):
    good(root)


@case("another number of classes than the row says", "has 2 classes; expected 3", num_classes=3)
def _(root):
    good(root)


@case("one class where two are declared", "as declared", class_names=["cat", "dog"])
def _(root):
    good(root, ("cat",))


@case("an image beside the class folders", "stray.png: lies beside the class folders")
def _(root):
    (good(root) / "stray.png").write_bytes(png())


@case("classes that differ in case alone", "differ in case alone")
def _(root):
    good(root, ("Cat", "cat"))


@case("train and test of other classes", "other class folders")
def _(root):
    good(root / "train")
    good(root / "test", ("cat",))


@case("a test part beside class folders", "has the folder test beside class folders, but no train")
def _(root):
    good(root)
    good(root / "test")


@case("a dangling link", "bad.png: a link that leads nowhere")
def _(root):
    (good(root) / "cat" / "bad.png").symlink_to("gone.png")


@case("a loop of links", "loop")
def _(root):
    (good(root) / "cat" / "loop").symlink_to("..")


@case("a pipe that would hang", "bad.png: no regular file")
def _(root):
    os.mkfifo(good(root) / "cat" / "bad.png")


@case("a class name with a line break", "printable")
def _(root):
    good(root, ("cat\nrm -rf", "dog"))


@case("a class name of undecodable bytes", "printable")
def _(root):
    good(root)
    os.mkdir(os.fsencode(root) + b"/\xff\xfe")


@case("a bad file with a name full of metacharacters", "\\$\\(touch x\\);'.*.png: not an image")
def _(root):
    (good(root) / "cat" / "$(touch x);'`id` ä\u202e.png").write_bytes(b"no image")


# Label files.
def labelled(root: Path, text: str | bytes, name: str = "labels.csv") -> None:
    root.mkdir()
    for index in range(20):
        (root / f"{index}.png").write_bytes(png(index))
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())


ROWS = [f"{index}.png,{'cat' if index % 2 else 'dog'}" for index in range(20)]
TABLE = "\n".join(["file,label", *ROWS])
for _name, _text, _told, _settings in (
    ("a labelled file that is missing", TABLE + "\ngone.png,cat", "gone.png", {}),
    ("a file without a label", "\n".join(["file,label", *ROWS[:-1]]), "19.png", {}),
    ("a class that is not declared, in a table", TABLE.replace("3.png,cat", "3.png,cta"), "cta",
     {"class_names": ["cat", "dog"]}),
    ("an empty label", TABLE.replace("3.png,cat", "3.png,"), "3.png: has no label", {}),
    ("labels that are no whole numbers", TABLE.replace("dog", "0").replace("cat", "1.5"), "1.5", {}),
    ("negative labels", TABLE.replace("dog", "0").replace("cat", "-1"), "-1", {}),
    ("numbers and names mixed", TABLE.replace("3.png,cat", "3.png,7"), "7", {}),
    ("more numbers than classes", TABLE.replace("dog", "0").replace("cat", "9"), "9",
     {"class_names": ["cat", "dog"]}),
    ("labels that differ in case alone", TABLE.replace("3.png,cat", "3.png,Cat"), "labels Cat and cat, which", {}),
    ("a label far beyond the others", TABLE.replace("dog", "0").replace("7.png,cat", "7.png,65535").replace("cat", "1"),
     "labels up to 65535 \\(.*7.png", {}),
    ("a file named twice", TABLE + "\n3.png,dog", "3.png", {}),
    ("a row that climbs out", TABLE + "\n../../etc/passwd,cat", "passwd", {}),
    ("an absolute row", TABLE + "\n/etc/passwd,cat", "passwd", {}),
    ("an unknown header", TABLE.replace("file,label", "what,ever"), "what", {}),
    ("a header only", "file,label\n", "labels.csv", {}),
    ("an empty table", "", "labels.csv", {}),
    ("a table of zero bytes", b"\0" * 50, "labels.csv", {}),
    ("a table in another encoding", TABLE.replace("cat", "ka\xe9").encode("latin-1"), "labels.csv", {}),
    ("a row with too few columns", TABLE + "\n3", "labels.csv", {}),
):  # fmt: skip
    CASES[_name] = (lambda root, text=_text: labelled(root, text), _told, _settings)


@case("a label file in other letters", "Labels.CSV: would be a label file, but for the letters of its name")
def _(root):
    labelled(root, TABLE, "Labels.CSV")


@case("JSON lines that are none", "metadata.jsonl")
def _(root):
    labelled(root, '{"file_name": "0.png", "label": "cat"}\n{broken', "metadata.jsonl")


# Archives.
def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubled names
        for number, name in enumerate(("cat", "dog")):
            for index in range(12):
                archive.writestr(f"{name}/{index}.png", png(100 * number + index))
        for name, content in members:
            archive.writestr(name, content)
    return str(path)


def linked() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("cat/link.png")
    info.external_attr = 0o120777 << 16
    return info


for _name, _members, _told in (
    ("zip: climbs out", [("../evil.png", png())], "evil.png"),
    ("zip: absolute", [("/tmp/evil.png", png())], "evil.png"),
    ("zip: climbs out with backslashes", [("cat\\..\\..\\evil.png", png())], "evil.png"),
    ("zip: a link", [(linked(), b"/etc/passwd")], "link.png"),
    ("zip: one name twice", [("cat/3.png", png(9))], "3.png"),
    ("zip: a bomb", [("cat/bomb.png", b"\0" * 50_000_000)], "bomb.png"),
    ("zip: nested", [("cat/inner.zip", b"PK\x03\x04")], "inner.zip"),
    ("zip: text with an image's name", [("cat/bad.png", b"no image")], "bad.png: not an image"),
):
    CASES[_name] = (lambda root, members=_members: zipped(root / "a.zip", *members), _told, {})


@case("zip: truncated", "a.zip")
def _(root):
    path = zipped(root / "a.zip")
    Path(path).write_bytes(Path(path).read_bytes()[:-100])
    return path


@case("zip: a flipped bit in an image", "cat/0.png")
def _(root):
    path = zipped(root / "a.zip")
    content = bytearray(Path(path).read_bytes())
    content[60] ^= 4
    Path(path).write_bytes(content)
    return path


@case("zip: an ending that lies", "a.zip")
def _(root):
    root.mkdir()
    (root / "a.zip").write_bytes(b"no archive")
    return str(root / "a.zip")


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        own = [(f"{n}/{i}.png", png(100 * k + i)) for k, n in enumerate(("cat", "dog")) for i in range(12)]
        for info, content in [*((tarfile.TarInfo(name), content) for name, content in own), *members]:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


for _name, _members, _told in (
    ("tar: climbs out", [(member("../../evil.png"), png())], "evil.png"),
    ("tar: absolute", [(member("/tmp/evil.png"), png())], "evil.png"),
    ("tar: a symbolic link", [(member("cat/link.png", tarfile.SYMTYPE, "/etc/passwd"), b"")], "link.png"),
    ("tar: a hard link", [(member("cat/link.png", tarfile.LNKTYPE, "../../etc/passwd"), b"")], "link.png"),
    ("tar: a device", [(member("cat/dev.png", tarfile.CHRTYPE), b"")], "dev.png"),
    ("tar: one name twice", [(member("cat/3.png"), png(9))], "3.png"),
):
    CASES[_name] = (lambda root, members=_members: tarred(root / "a.tar.gz", *members), _told, {})


@case("tar: truncated", "a.tar")
def _(root):
    path = tarred(root / "a.tar")
    Path(path).write_bytes(Path(path).read_bytes()[:9000])
    return path


# Arrays.
def saved(root: Path, **arrays: np.ndarray) -> str:
    root.mkdir()
    np.savez(root / "a.npz", **arrays)
    return str(root / "a.npz")


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2
FLOATS = PIXELS / 255.0
for _name, _arrays, _told, _settings in (
    ("npz: NaN", {"images": np.where(np.arange(20)[:, None, None, None] == 7, np.nan, FLOATS)}, "7.*not finite", {}),
    ("npz: floats out of range", {"images": FLOATS * 255}, "expected 0 to 1", {}),
    ("npz: pixels of int64", {"images": PIXELS.astype(np.int64)}, "int64", {}),
    ("npz: flat pixels", {"images": PIXELS.reshape(20, -1)}, "shape|\\[20, 192\\]", {}),
    ("npz: two channels", {"images": PIXELS[..., :2]}, "\\[20, 8, 8, 2\\]|shape", {}),
    ("npz: more labels than images", {"labels": np.arange(30) % 2}, "30", {}),
    ("npz: fractions as labels", {"labels": LABELS + 0.5}, "labels", {}),
    ("npz: labels below zero", {"labels": LABELS - 1}, "-1", {}),
    ("npz: more classes than declared", {"labels": LABELS * 4}, "4", {"class_names": ["cat", "dog"]}),
    (
        "npz: a label far beyond the others",
        {"labels": np.where(np.arange(20) == 7, 99999, LABELS)},
        "labels up to 99999 \\(images\\[7\\]\\)",
        {},
    ),
    ("npz: objects", {"labels": np.array([{}] * 20, object)}, "object", {}),
    ("npz: no images", {"images": PIXELS[:0], "labels": LABELS[:0]}, "images", {}),
):
    CASES[_name] = (
        lambda root, arrays=_arrays: saved(root, **{"images": PIXELS, "labels": LABELS, **arrays}), _told, _settings
    )  # fmt: skip


@case("npz: unknown keys", "expected")
def _(root):
    return saved(root, what=PIXELS, ever=LABELS)


@case("npz: truncated", "a.npz")
def _(root):
    path = Path(saved(root, images=PIXELS, labels=LABELS))
    path.write_bytes(path.read_bytes()[:2000])
    return str(path)


@case("HDF5: a link to another file", "link|other file|external")
def _(root):
    root.mkdir()
    with h5py.File(root / "other.h5", "w") as file:
        file["images"] = PIXELS
    with h5py.File(root / "a.h5", "w") as file:
        file["images"], file["labels"] = h5py.ExternalLink("other.h5", "images"), LABELS
    return str(root / "a.h5")


@case("HDF5: a heap of texts that never ends", "a.h5 is no HDF5 file that can be read \\(HDF5 does not end within")
def _(root):
    root.mkdir()
    with h5py.File(root / "a.h5", "w") as file:
        file["images"], file["labels"] = PIXELS, LABELS
        file.attrs["class_names"] = ["cat", "dog"]
    content = bytearray((root / "a.h5").read_bytes())
    content[content.find(b"GCOL") + 24] = 255  # the length of the first text
    (root / "a.h5").write_bytes(content)
    return str(root / "a.h5")


@case("HDF5: truncated", "a.h5")
def _(root):
    root.mkdir()
    with h5py.File(root / "a.h5", "w") as file:
        file["images"], file["labels"] = PIXELS, LABELS
    content = (root / "a.h5").read_bytes()
    (root / "a.h5").write_bytes(content[: len(content) // 2])
    return str(root / "a.h5")


@case("Parquet: no image column", "image")
def _(root):
    import pyarrow
    from pyarrow import parquet

    root.mkdir()
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": ["x", "y"]}), root / "a.parquet")
    return str(root / "a.parquet")


@case("Parquet: damaged", "a.parquet")
def _(root):
    root.mkdir()
    (root / "a.parquet").write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1")
    return str(root / "a.parquet")


# IDX and CIFAR.
def idx(root: Path, images: bytes, labels: bytes, ending: str = "") -> None:
    root.mkdir()
    for part in ("train", "t10k"):
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            packed = gzip.compress(content) if ending else content
            (root / f"{part}-{name}-ubyte{ending}").write_bytes(packed)


IMAGES = struct.pack(">IIII", 2051, 20, 8, 8) + PIXELS[..., 0].tobytes()
NUMBERS = struct.pack(">II", 2049, 20) + LABELS.astype(np.uint8).tobytes()
for _name, _images, _labels, _told in (
    ("IDX: a wrong magic number", b"\0\0\x09\x03" + IMAGES[4:], NUMBERS, "train-images-idx3-ubyte"),
    ("IDX: too short", IMAGES[:-10], NUMBERS, "train-images-idx3-ubyte"),
    ("IDX: too long", IMAGES + b"\0", NUMBERS, "train-images-idx3-ubyte"),
    ("IDX: claims two thousand million images", IMAGES[:4] + b"\x7f\xff\xff\xff" + IMAGES[8:], NUMBERS, "train-images"),
    ("IDX: fewer labels than images", IMAGES, struct.pack(">II", 2049, 5) + b"\0" * 5, "train-"),
    ("IDX: a label of 77", IMAGES, NUMBERS[:-1] + b"\x4d", "77"),
):
    CASES[_name] = (lambda root, i=_images, n=_labels: idx(root, i, n), _told, {"source": "mnist"})


@case("IDX: truncated gzip", "train-images-idx3-ubyte.gz", source="mnist")
def _(root):
    idx(root, IMAGES, NUMBERS, ".gz")
    for path in root.iterdir():
        path.write_bytes(path.read_bytes()[:-20])


@case("IDX: a file is missing", "train-labels-idx1-ubyte", source="mnist")
def _(root):
    idx(root, IMAGES, NUMBERS)
    (root / "train-labels-idx1-ubyte").unlink()


@case("CIFAR: a batch with a bad checksum", "data_batch_1", source="cifar10")
def _(root):
    root.mkdir()
    for name in [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]:
        (root / name).write_bytes(pickle.dumps({"data": PIXELS.reshape(20, -1), "labels": LABELS.tolist()}))


@case("CIFAR: a batch is missing", "data_batch_1", source="cifar10")
def _(root):
    root.mkdir()


@case("a text file as path", "notes.txt")
def _(root):
    root.mkdir()
    (root / "notes.txt").write_text(json.dumps({}))
    return str(root / "notes.txt")


@case("one image as path", "one.png")
def _(root):
    root.mkdir()
    (root / "one.png").write_bytes(png())
    return str(root / "one.png")


def raw_png(bits: int, colours: int, rows: bytes, *more: bytes, width: int = 8, height: int = 8) -> bytes:
    """A PNG of the given pixels, with further chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    body = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def tiff(pixels: np.ndarray, **tags: int) -> bytes:
    """A TIFF of the given pixels, whose tags say something else of them."""
    buffer = io.BytesIO()
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[int(tag.removeprefix("t"))] = value
    Image.fromarray(pixels).save(buffer, "TIFF", tiffinfo=info)
    return buffer.getvalue()


GREY_16 = b"".join(b"\0" + b"\x9c\x40" * 8 for _ in range(8))
PLAIN = b"".join(b"\0" + bytes(range(8)) for _ in range(8))
for _name, _content, _told in (
    ("a palette PNG without a palette", raw_png(8, 3, PLAIN), "bad.png: cannot be decoded"),
    ("a colour beyond the palette", raw_png(8, 3, PLAIN, chunk(b"PLTE", bytes(9))), "not in the palette"),
    ("a transparent colour at 16 bits", raw_png(16, 0, GREY_16, chunk(b"tRNS", b"\x9c\x40")), "colour at 16 bits"),
    ("deep grey of which 0 is white", tiff(np.full((8, 8), 1000, np.uint16), t262=0), "of which 0 is white"),
):
    CASES[_name] = (among(_content), _told, {})


@case("a part beside a folder of another name", "has the folders \\['test_images'\\] beside")
def _(root):
    good(root / "train")
    good(root / "test_images")


@case("class names that differ in a space", "differ in spaces at an end")
def _(root):
    good(root, ("cat", "cat "))


@case("class names that differ in how an accent is stored", "spelling of accents")
def _(root):
    good(root, ("k\u00e4se", "ka\u0308se"))
