"""Archives of images give what the folder gives that was packed, and leave nothing on the disk."""

import shutil
import subprocess
import tarfile
import zipfile

import pytest

from privimage.data import folder
from privimage.data.record import Problem, Record
from privimage.settings import Source

CLASSES = ("cat", "dog")


def source(path):
    return Source(source="folder", path=str(path), resolution=4, channels=3)


def put(root, *names):
    """Files with contents of their own."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"pixels of " + name.encode())
    return root


def known_of(collection, prefix=""):
    """All that is known of each item, by its name without the archive's."""
    found = set()
    for item in collection.items():
        assert item.name.startswith(prefix)
        rest = (item.label, item.split, item.load()) if isinstance(item, Record) else (item.what, item.fix)
        found.add((item.name.removeprefix(prefix), *rest))
    return found


def pack(root, path):
    """The folder as an archive of the kind that the name says."""
    names = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*"))]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(root / name, name)
    else:
        kind = path.name.rpartition(".tar")[2].lstrip(".")
        with tarfile.open(path, f"w:{kind}") as archive:
            for name in reversed(names):
                archive.add(root / name, name, recursive=False)
    return path


LAYOUTS = {
    "classes": ["cat/1.png", "cat/deep/2.png", "dog/3.png", "README.md"],
    "parts": [
        f"{part}/{name}/{index}.png" for part in ("train", "val", "test") for name in CLASSES for index in (1, 2)
    ],
    "wrapped": ["pets/cat/1.png", "pets/dog/2.png", "README.md", "pets/ORIGIN.txt"],
    "wrapped twice": ["a/b/train/cat/1.png", "a/b/test/cat/2.png"],
    "flat": ["1.png", "2.png", "3.png"],
    "strays": ["cat/1.png", "dog/1.png", "stray.png", "cat/.hidden", "dog/in.zip"],
    "labels": ["a/1.png", "a/2.png", "b/3.png", "extra.png"],
}
TABLE = "file_name,label,split\na/1.png,cat,train\na/2.png,dog,test\nb/3.png,cat,train\ngone.png,cat,test\n"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_archives_give_what_the_folder_gives(tmp_path, layout, name):
    root = put(tmp_path / "root", *LAYOUTS[layout])
    if layout == "labels":
        (root / "metadata.csv").write_text(TABLE)
    else:
        (root / "empty").mkdir() if layout == "classes" else None
    packed = folder.read(source(pack(root, tmp_path / name)))
    plain = folder.read(source(root))
    assert packed.class_names == plain.class_names and name not in packed.form

    assert known_of(packed, f"{name}: ") == known_of(plain)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["root", name])


@pytest.mark.data
def test_real_images_in_folders_and_in_archives_are_the_same(tmp_path, real_data):
    root = tmp_path / "root"
    with zipfile.ZipFile(real_data / "imagenet1000_sample64.zip") as archive:
        wanted = set()
        for index, member in enumerate(archive.namelist()[:60]):
            name, content = f"class{index % 3}/{member}", archive.read(member)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
            wanted.add((name, index % 3, None, content))
    assert known_of(folder.read(source(root))) == wanted
    for name in ("a.zip", "a.tar", "a.tar.gz"):
        assert known_of(folder.read(source(pack(root, tmp_path / name))), f"{name}: ") == wanted


@pytest.mark.data
def test_a_real_flat_archive_is_one_class_of_1000_images(real_data):
    records = list(folder.read(source(real_data / "imagenet1000_sample64.zip"), ("thing",)).items())
    assert len(records) == 1000 and all(isinstance(record, Record) for record in records)


def test_what_the_tar_and_zip_programs_pack_is_read(tmp_path):
    put(tmp_path / "pets", "cat/1.png", "dog/1.png")
    subprocess.run(["tar", "-czf", "a.tgz", "./pets"], cwd=tmp_path, check=True)
    shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path, "pets")
    for name in ("a.tgz", "b.zip"):
        items = list(folder.read(source(tmp_path / name)).items())
        assert sorted((item.name, item.label) for item in items) == [
            (f"{name}: pets/cat/1.png", 0), (f"{name}: pets/dog/1.png", 1)
        ]  # fmt: skip


def test_a_problem_in_an_archive_names_the_archive_and_the_member(tmp_path):
    root = put(tmp_path / "root", "cat/1.png", "dog/2.png", "stray.png")
    (problem,) = [
        item for item in folder.read(source(pack(root, tmp_path / "a.zip"))).items() if isinstance(item, Problem)
    ]
    assert str(problem) == "a.zip: stray.png: lies beside the class folders; move it into one of them or remove it."
