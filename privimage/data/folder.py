"""Image files in a folder or an archive: labels from a label file, or one sub-folder a class, or one flat class.

Tried in this order:

- a label file at the root, or one in each part (`labels.py` says which);
- parts ``train`` and ``test`` (or ``val``), each laid out as below; with all three, ``val`` joins ``train``;
- one folder a class; images deeper inside it belong to it;
- a flat folder of images: one class.

Where everything lies in one folder, that folder is the root. A part's root holds nothing beside the class folders but
texts, which are passed over; everything inside a class folder counts as an image, whatever its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from privimage.data.classes import in_declared_order, one_class
from privimage.data.labels import LABEL_FILES, label_file, labelled
from privimage.data.parts import PARTS, splits
from privimage.data.record import Collection, Note, Problem, Record, Split, printable
from privimage.data.tree import Tree, open_tree
from privimage.errors import UserError
from privimage.settings import Source

TEXTS = (".txt", ".md", ".json", ".jsonl", ".csv", ".pdf", ".html", ".xml")
TABLES = (".csv", ".jsonl", ".txt")  # texts that may have been meant to label the images
ABOUT = ("readme", "license", "licence")
MAX_WRAPPERS = 8  # folders that hold one folder and nothing else


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of a folder or archive, listed lazily.

    Raises:
        UserError: if there are no files, or the classes are not what was declared, or not the same in all parts.
    """
    if not source.path:
        raise UserError("A source of image files has no `path`; name the folder or archive that holds them.")
    tree = _unwrapped(open_tree(Path(source.path)), class_names)
    if not any(isinstance(item, Problem) or not is_text(item) for item in tree.files()):
        raise UserError(f"{tree.where} holds no image files; expected one folder of images for each class.")
    if label_file(tree):
        return labelled(tree, {"": None}, source, class_names, is_text)
    folders = tree.folders()
    _check_held_out(tree, folders, class_names or ())
    parts = {} if sorted(class_names or ()) == folders else _parts(tree, folders)
    if parts and any(label_file(tree, f"{part}/") for part in parts):
        return labelled(tree, {f"{part}/": split for part, split in parts.items()}, source, class_names, is_text)
    return _by_folders(tree, parts, source, class_names)


def is_text(name: str) -> bool:
    """Whether a file at the root is a text about the images, not one of them."""
    name = name.lower()
    return "/" not in name and (name.endswith(TEXTS) or name.startswith(ABOUT))


@dataclass(frozen=True)
class Wrapped:
    """The `Tree` of the one folder that holds everything; files beside it are problems, unless they are texts."""

    outer: Tree
    folder: str

    @property
    def where(self) -> str:
        return self.outer.sub(self.folder).where

    @property
    def form(self) -> str:
        return self.outer.form

    def files(self) -> Iterator[str | Problem]:
        for item in self.outer.files():
            if isinstance(item, Problem):
                yield item
            elif item.startswith(f"{self.folder}/"):
                yield item[len(self.folder) + 1 :]
            elif problem := _beside(self.outer.called(item), item, f"the folder {self.folder}"):
                yield problem

    def folders(self, name: str = "") -> list[str]:
        return self.outer.folders(f"{self.folder}/{name}")

    def has(self, name: str) -> bool:
        return self.outer.has(f"{self.folder}/{name}")

    def read(self, name: str) -> bytes:
        return self.outer.read(f"{self.folder}/{name}")

    def sub(self, name: str) -> Tree:
        return self.outer.sub(f"{self.folder}/{name}")

    def called(self, name: str) -> str:
        return self.outer.called(f"{self.folder}/{name}")


def _unwrapped(tree: Tree, declared: Sequence[str] | None) -> Tree:
    """The tree itself, or the folder inside that holds the class folders or the label file."""
    for _ in range(MAX_WRAPPERS):
        folders = tree.folders()
        if len(folders) != 1 or tuple(declared or ()) == tuple(folders) or label_file(tree):
            break
        if not tree.folders(folders[0]) and not label_file(tree, f"{folders[0]}/"):
            break
        tree = Wrapped(tree, folders[0])
    return tree


def _parts(tree: Tree, folders: Sequence[str]) -> dict[str, Split]:
    """The part that each folder is, if the folders are parts and not classes."""
    where = tree.where
    _check_case(folders, where)
    known = {folder: PARTS[folder.lower()] for folder in folders if folder.lower() in PARTS}
    found = set(known.values())
    if len(known) == len(folders) > 1:
        splits(found, where)  # all are parts: they must be such as belong together
    alone = found == {"train"} and not any(map(tree.folders, known))  # a class that happens to be called so
    if "train" not in found or alone:
        return {}
    strangers = [printable(folder) for folder in folders if folder not in known]
    if strangers:
        raise UserError(
            f"{where} has the folders {strangers[:10]} beside {sorted(known)}; expected only the parts of the split, "
            "move the others elsewhere."
        )
    split_of = splits(found, where)
    return {folder: split_of[part] for folder, part in known.items()}


def _check_held_out(tree: Tree, folders: Sequence[str], declared: Sequence[str]) -> None:
    """A folder ``test`` or ``val`` beside class folders would become a class of images of all classes."""
    known = [folder for folder in folders if folder.lower() in PARTS]
    if len(known) == len(folders) or "train" in {PARTS[folder.lower()] for folder in known}:
        return
    for folder in known:
        if folder not in declared or tree.folders(folder):
            raise UserError(
                f"{tree.where} has the folder {printable(folder)} beside class folders, but no train; expected the "
                f"class folders inside `train`, beside {printable(folder)}: move them there, or rename it if it is a "
                "class."
            )


def _check_case(folders: Sequence[str], where: str) -> None:
    """Two folders whose names differ in case alone are one class that was split by mistake."""
    seen: dict[str, str] = {}
    for folder in folders:
        other = seen.setdefault(folder.casefold(), folder)
        if other != folder:
            raise UserError(
                f"{where} has the folders {printable(other)} and {printable(folder)}, which differ in case alone; "
                "expected one folder a class, merge or rename them."
            )


def _by_folders(tree: Tree, parts: dict[str, Split], source: Source, declared: Sequence[str] | None) -> Collection:
    """The images of class folders, or of one class without folders, in each part."""
    roots = [f"{part}/" for part in parts] or [""]
    folders = _class_folders(tree, roots)
    if folders:
        names = in_declared_order(folders, source, declared, tree.where)
    else:
        names = one_class(source, declared, f"{tree.where} has no class folders")
    labels = {name: label for label, name in enumerate(names)} if folders else None
    form = f"{tree.form} of class folders" if folders else f"flat {tree.form} of images"
    form += f" in the parts {', '.join(parts)}" if parts else ""
    return Collection(form, names, partial(_items, tree, parts, labels))


def _class_folders(tree: Tree, roots: Sequence[str]) -> list[str]:
    """The class folders, which are the same in all parts."""
    found = [tree.folders(root.rstrip("/")) for root in roots]
    for root, folders in zip(roots, found):
        _check_case(folders, tree.sub(root.rstrip("/")).where if root else tree.where)
        differing = sorted(set(folders) ^ set(found[0]))
        if differing:
            raise UserError(
                f"{tree.where} has other class folders in {root} than in {roots[0]}: "
                f"{[printable(name) for name in differing[:10]]} {'is' if len(differing) == 1 else 'are'} in one of "
                "them only; expected the same classes in both, add or remove them."
            )
    return found[0]


def _items(tree: Tree, parts: dict[str, Split], labels: dict[str, int] | None) -> Iterator[Record | Problem | Note]:
    """``labels`` by class folder; None for images without class folders."""
    missing = {f"{part}/{name}" if part else name for part in parts or [""] for name in labels or ()}
    top, told = tree.called(""), f"the folders {', '.join(parts)}"
    table, tables = "", 0  # the first that lies beside the images, and how many there are
    for item in tree.files():
        path = item.name.removeprefix(top) if isinstance(item, Problem) else item
        part, _, rest = path.partition("/") if parts else ("", "", path)
        folder, inside, _ = rest.partition("/")
        missing.discard(f"{part}/{folder}" if parts else folder)
        if isinstance(item, Problem):
            yield item
            continue
        within = part in parts or not parts
        label = 0 if labels is None else labels.get(folder) if inside else None
        name = rest if within else item
        if within and label is not None and (inside or not is_text(rest)):
            yield Record(tree.called(item), label, parts.get(part), partial(tree.read, item))
        elif problem := _beside(tree.called(item), name, "the class folders" if within else told):
            yield problem
        elif name.lower().endswith(TABLES) and not name.lower().startswith(ABOUT):
            table, tables = table or item, tables + 1
    for folder in sorted(missing):
        yield Problem(tree.called(f"{folder}/"), "the class folder holds no files", "add images to it or remove it")
    if tables and len(labels or ()) < 2:
        yield _unread(tree.called(table), tables - 1)


def _unread(name: str, others: int) -> Note:
    more = f" and {others} more texts were" if others else " was"
    return Note(f"{printable(name)}{more} not read; if it labels the images, call it one of {', '.join(LABEL_FILES)}.")


def _beside(called: str, name: str, what: str) -> Problem | None:
    """What is wrong with a file that lies beside folders or is no image; texts may lie there."""
    if not is_text(name):
        return Problem(called, f"lies beside {what}", "move it into one of them or remove it")
    if name.lower() in LABEL_FILES:
        fix = f"call it {name.lower()}, or remove it"
        return Problem(called, "would be a label file, but for the letters of its name", fix, skippable=False)
    return None
