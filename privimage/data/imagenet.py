"""ImageNet's challenge set (ILSVRC2012), from folders of images or from the official archives, read where they lie.

The official training file is a tar of 1,000 tars, one for each class. It is never unpacked: its headers are walked, and
an image is read from its place. Validation images are the test split; the challenge's own test images have no labels,
and are left alone. Nothing is chosen by a file's ending: one training image is a PNG called .JPEG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from privimage.data.classes import in_declared_order
from privimage.data.imagenet_classes import names_by_wnid
from privimage.data.imagenet_labels import STEM, WNID, validation_labels
from privimage.data.imagenet_tar import Span, members, read_member
from privimage.data.messages import shown
from privimage.data.record import Collection, Content, Problem, Record, printable
from privimage.data.tree import Tree, open_tree
from privimage.errors import UserError
from privimage.settings import Source

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
BASES = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # where `train` and `val` are; Kaggle's are deep
BESIDE = (".txt", ".csv", ".json", ".md", ".gz", ".tar", ".mat", ".bin")  # files that may lie beside folders of classes

Load = Callable[[], Content]


@dataclass(frozen=True)
class Half:
    """One part: where it is, as what, its classes, and its images as (name, class, what reads it).

    A class is a WordNet id, or a folder's own name.
    """

    where: str
    form: str
    keys: frozenset[str]
    images: Callable[[], Iterator[tuple[str, str, Load] | Problem]]


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images under ``source.path`` (or ``data/imagenet``): those to train with, then those for validation.

    Classes are in the order of the sorted WordNet ids, as everywhere in the field, under their readable names. Without
    validation images each image's own content decides the split.

    Raises:
        UserError: if nothing is laid out as ImageNet is, both parts do not have the same classes, labels of validation
            images are missing or damaged, or the classes are not the declared ones.
    """
    root = Path(source.path or f"data/{source.source}")
    train, val = _halves(root)
    keys = sorted(train.keys)
    _check_ids(keys, train.where)
    if val is not None:
        _check_same(train, val)
    readable = names_by_wnid()
    found = [readable.get(key, key) for key in keys]
    ordered = in_declared_order(found, source, class_names, printable(train.where))
    place = {name: label for label, name in enumerate(ordered)}
    labels = {key: place[name] for key, name in zip(keys, found)}
    form = f"ImageNet, {train.form}" + (f"; validation: {val.form}" if val else "; no validation images")
    return Collection(form, ordered, partial(_items, train, val, labels))


def _items(train: Half, val: Half | None, labels: Mapping[str, int]) -> Iterator[Record | Problem]:
    for half, split in ((train, "train" if val else None), (val, "test")):
        for item in half.images() if half else ():
            if isinstance(item, Problem):
                yield item
            else:
                name, key, load = item
                yield Record(name, labels[key], split, load)


def _halves(root: Path) -> tuple[Half, Half | None]:
    if root.is_file() and _is_nested(root):
        return _nested(root), None
    tree = open_tree(root)
    base = next((base for base in BASES if _is_folder(tree, _join(base, "train"))), None)
    if base is not None:
        train = _folders(tree, _join(base, "train"))
    elif (root / TRAIN_TAR).is_file():
        train = _nested(root / TRAIN_TAR)
    elif tree.folders() and not any(_is_folder(tree, _join(base, "val")) for base in BASES):
        train = _folders(tree, "")
    else:
        raise UserError(
            f"{printable(tree.where)} has no training images of ImageNet; expected folders named by WordNet ids such "
            f"as n01440764, a folder `train` of them, or {TRAIN_TAR}."
        )
    _check_test(tree, _join(base or "", "test"), train)
    return train, _validation(root, tree, base or "")


def _check_test(tree: Tree, name: str, train: Half) -> None:
    """The challenge's test images have no labels; labelled ones, in folders of classes, would be left out unseen."""
    if _is_folder(tree, name) and train.keys.intersection(tree.folders(name)):
        raise UserError(
            f"{printable(tree.sub(name).where)} has folders of classes; expected labelled images to be held out in "
            "`val`: move them there, or name `source: folder`, which reads `test`."
        )


def _is_folder(tree: Tree, name: str) -> bool:
    parent, _, last = name.rpartition("/")
    return (not parent or _is_folder(tree, parent)) and last in tree.folders(parent)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _check_ids(keys: Sequence[str], where: str) -> None:
    strangers = [key for key in keys if not WNID.fullmatch(key)]
    if strangers and len(strangers) < len(keys):
        raise UserError(
            f"{printable(where)} has, among folders named by WordNet ids, {_some(strangers)}; expected n and eight "
            "digits everywhere or nowhere, move the others away."
        )


def _check_same(train: Half, val: Half) -> None:
    lacking, extra = sorted(train.keys - val.keys), sorted(val.keys - train.keys)
    if lacking or extra:
        wrong = [f"lacks {_some(lacking)}"] * bool(lacking) + [f"has {_some(extra)} besides"] * bool(extra)
        raise UserError(
            f"{printable(val.where)} {' and '.join(wrong)}; expected the {len(train.keys)} classes of "
            f"{printable(train.where)}, add or remove what differs."
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(printable(name) for name in names[:5])}{more}"


def _folders(tree: Tree, name: str) -> Half:
    """Images in a folder for each class; ``name`` is the folder of these folders, "" the root."""
    sub = tree.sub(name) if name else tree
    keys = frozenset(sub.folders())
    if not keys:
        raise UserError(
            f"{printable(sub.where)} has no folders; expected one for each class, named by its WordNet id such as "
            f"n01440764 (the official {TRAIN_TAR} is read as it is, without unpacking)."
        )

    def images() -> Iterator[tuple[str, str, Load] | Problem]:
        for item in sub.files():
            path = item.name if isinstance(item, Problem) else item
            if not name and "/" not in path and path.lower().endswith(BESIDE):
                continue
            key, slash, _ = path.partition("/")
            if isinstance(item, Problem):
                yield item
            elif slash and key in keys:
                yield sub.called(item), key, partial(sub.read, item)
            else:
                yield Problem(sub.called(item), "it lies in no class's folder", "move it into one, or away")

    return Half(sub.where, f"{len(keys)} folders in a {tree.form}", keys, images)


def _is_nested(path: Path) -> bool:
    """Whether a file is a tar whose first member is a tar."""
    if path.suffix != ".tar":
        return False
    first = next(iter(members(path)), None)
    return first is not None and first.name.endswith(".tar")


def _nested(path: Path) -> Half:
    """The official training file. Its own list, of the tars, is kept; theirs are walked anew each time."""
    inner: dict[str, Span] = {}
    for member in members(path):
        key = member.name.removesuffix(".tar")
        if not member.is_file or key == member.name or key in inner:
            raise UserError(
                f"{shown(path)} holds {printable(member.name)}; expected one .tar for each class and nothing "
                "else, copy the official file anew."
            )
        inner[key] = member.span
    if not inner:
        raise UserError(f"{shown(path)} is empty; expected one .tar for each class, copy it anew.")

    def images() -> Iterator[tuple[str, str, Load] | Problem]:
        for key, span in inner.items():
            for item in _tar_images(path, span, f"{key}.tar", f"{path.name}: {key}/"):
                yield item if isinstance(item, Problem) else (item[0], key, item[1])

    return Half(str(path), f"{len(inner)} tars in a tar", frozenset(inner), images)


def _tar_images(path: Path, span: Span | None, inside: str, prefix: str) -> Iterator[tuple[str, Load] | Problem]:
    for member in members(path, span, inside):
        name = f"{prefix}{member.name}"
        if member.is_file:
            yield name, partial(read_member, path, member)
        else:
            yield Problem(name, "it is a link or a device, not a file", "pack the file itself")


def _validation(root: Path, tree: Tree, base: str) -> Half | None:
    name, archive = _join(base, "val"), root / VAL_TAR
    if _is_folder(tree, name):
        sub = tree.sub(name)
        if sub.folders():
            return _folders(tree, name)
        labels = validation_labels(root, tree, sub.where)
        return _flat(sub.where, f"images in a {tree.form}", partial(_plain, sub), *labels)
    if archive.is_file():
        images = partial(_tar_images, archive, None, "", f"{VAL_TAR}: ")
        labels = validation_labels(root, tree, str(archive))
        return _flat(str(archive), "images in a tar", images, *labels)
    return None


def _plain(tree: Tree) -> Iterator[tuple[str, Load] | Problem]:
    for item in tree.files():
        yield item if isinstance(item, Problem) else (tree.called(item), partial(tree.read, item))


def _flat(
    where: str,
    form: str,
    files: Callable[[], Iterator[tuple[str, Load] | Problem]],
    labels: Mapping[str, str],
    table: str,
) -> Half:
    """Validation images in one heap; ``labels`` tells the class of each by its name without the ending."""

    def images() -> Iterator[tuple[str, str, Load] | Problem]:
        wanted = dict.fromkeys(labels)
        for item in files():
            if isinstance(item, Problem):
                yield item
                continue
            stem = item[0].rpartition(": ")[2].rpartition("/")[2].partition(".")[0]
            if not STEM.fullmatch(stem):
                yield Problem(item[0], "expected a name like ILSVRC2012_val_00000001.JPEG", "rename it or move it away")
            elif stem not in labels:
                yield Problem(item[0], f"{table} has no label for it", "move it away")
            elif stem not in wanted:
                yield Problem(item[0], "another image has the same number", "remove one of them")
            else:
                del wanted[stem]
                yield item[0], labels[stem], item[1]
        if wanted:
            told = f"{len(wanted)} of {len(labels)} labelled images are missing, such as {next(iter(wanted))}"
            yield Problem(where, told, "copy them anew")

    keys = frozenset(item[1] for item in images() if not isinstance(item, Problem))
    return Half(where, f"{form}, labels of {table}", keys, images)
