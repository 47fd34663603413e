"""Joining shards: any number of them gives the same sets; what is bad stops it; declared numbers are only doubted."""

import json
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sets import image_sets

from privimage import preprocess, shard
from privimage.artifacts import Contents, ImageSet, Provenance
from privimage.data import digits
from privimage.data.reading import Part
from privimage.data.record import Collection, Problem, Record
from privimage.errors import UserError
from privimage.settings import JoinSettings, Source
from privimage.shards import Shard, write_shard

DIGITS = Source(source="digits", resolution=8, channels=1)
SOURCE = Source(source="folder", resolution=4, channels=1)
MADE = Provenance("preprocess", 1)
META = {"source": "folder", "resolution": 4, "channels": 1}


def numbered(count, seed=0):
    """Pictures that all differ, of two classes, a third of them for testing; every eleventh is bad."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 4, 4), dtype=np.uint8)

    def items():
        for n in range(count):
            if n % 11 == 10:
                yield Problem(f"{n}", "is torn", "mend it")
            else:
                yield Record(f"{n}", n % 2, "test" if n % 3 == 0 else "train", lambda n=n: images[n])

    return images, Collection("list", ("cat", "dog"), items)


def written(collection, folder, of=1, source=SOURCE, meta=META):
    for index in range(of):
        write_shard(folder / f"{index}.h5", Part(collection, source, index, of), dict(meta))
    return [Shard.read(folder / f"{index}.h5") for index in range(of)]


def join(shards, on_bad_image="skip", num_images=None):
    return preprocess.run(shards, JoinSettings(on_bad_image=on_bad_image), num_images, MADE)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(count=st.integers(8, 700), of=st.integers(1, 5))
def test_any_number_of_shards_gives_the_images_in_the_order_of_the_list(count, of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    images, collection = numbered(count)
    joined = join(written(collection, folder, of))
    for is_test, made in ((False, joined.train), (True, joined.test)):
        made.write_stretches(folder / "x.h5", joined.stretches(is_test))
        got = ImageSet.read(folder / "x.h5")
        chosen = [n for n in range(count) if n % 11 != 10 and (n % 3 == 0) == is_test]
        np.testing.assert_array_equal(got.images[..., 0], images[chosen])
        np.testing.assert_array_equal(got.labels, np.array(chosen) % 2)


def test_bad_images_stop_it_all_listed_at_once_and_nothing_is_written(tmp_path):
    shards = written(numbered(300)[1], tmp_path, 3)
    with pytest.raises(UserError) as caught:
        join(shards, "error")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("27 problems with the images; mend them (`on_bad_image: skip`")
    assert lines[1:] == [f"  {n}: is torn; mend it." for n in range(10, 300, 11)]


def test_skipped_images_are_listed_and_move_no_other(tmp_path):
    joined = join(written(numbered(300)[1], tmp_path, 2))
    assert joined.contents.problems == [f"{n}: is torn; mend it." for n in range(10, 300, 11)]
    assert sum(joined.contents.train.values()) + sum(joined.contents.test.values()) == 300 - 27


def test_what_concerns_more_than_one_image_is_never_skipped(tmp_path):
    _, good = numbered(10)

    def items():
        yield from good.items()
        yield Problem("a", "is named twice", "keep one", skippable=False)

    with pytest.raises(UserError, match="1 problems with the images; mend them:\n  a: is named twice; keep one"):
        join(written(Collection("list", ("cat", "dog"), items), tmp_path))


def test_a_source_that_changed_between_shards_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = written(numbered(300)[1], tmp_path / "a", 2)
    second = written(numbered(301)[1], tmp_path / "b", 2)
    with pytest.raises(UserError, match="differ in their num_items: the source changed while it was read"):
        join([first[0], second[1]])
    with pytest.raises(UserError, match="got 1 shards; expected each of the 2 parts"):
        join([first[0]])
    with pytest.raises(UserError, match="expected each of the 2 parts"):
        join([first[0], first[0]])


def test_other_settings_in_one_shard_are_refused(tmp_path):
    first, second = (written(numbered(40)[1], tmp_path, 2, meta={**META, "filter": f}) for f in ("box", "lanczos"))
    with pytest.raises(UserError, match="differ in their settings"):
        join([first[0], second[1]])


@pytest.mark.parametrize(("count", "test"), [(0, 0), (1, 1)])
def test_an_empty_part_is_refused(tmp_path, count, test):
    with pytest.raises(UserError, match=f"the list gave 0 training images and {test} test images; expected some"):
        join(written(numbered(count)[1], tmp_path))


def test_a_class_that_no_release_may_name_is_refused_before_anything_is_spent(tmp_path):
    _, collection = numbered(12)
    with pytest.raises(UserError, match="a class is called /m/0k4j, which reads as a path"):
        join(written(Collection("list", ("cat", "/m/0k4j"), collection.items), tmp_path))


def test_copies_are_told_by_name(tmp_path):
    same = np.full((4, 4), 9, np.uint8)
    items = [Record(name, 0, split, lambda: same) for name, split in (("a", "train"), ("b", "train"), ("c", "test"))]
    joined = join(written(Collection("list", ("cat",), lambda: iter(items)), tmp_path))
    assert joined.contents.warnings == [
        "1 training images are copies of other training images (for instance a = b = c).",
        "1 test images are copies of training images, which flatters every measurement (for instance a = b = c).",
    ]


def test_the_declared_number_and_an_empty_class_are_doubted():
    images = ImageSet(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 2]), ("a", "b", "c"), "folder")
    assert list(preprocess.doubts(images, 2)) == ['class "b" has no training image.']
    assert "2 training images, and num_images is declared as 3" in next(preprocess.doubts(images, 3))


def test_the_stages_together_make_the_sets(monkeypatch, tmp_path, capsys):
    names = json.dumps([str(n) for n in range(10)])
    row = json.dumps({"source": "digits", "resolution": 8, "channels": 1})
    for index in "01":
        made = ["--settings", row, "--class-names", names, "--index", index, "--of", "2"]
        monkeypatch.setattr(sys, "argv", ["shard", *made, "--shard", str(tmp_path / f"internal/{index}.h5")])
        shard.main()
    out = {n: tmp_path / "internal" / f for n, f in (("train", "a.h5"), ("holdout", "b.h5"), ("contents", "c.json"))}
    out["sheet"] = tmp_path / "internal" / "sheet.png"
    flags = [text for name, path in out.items() for text in (f"--{name}", str(path))]
    shards = [str(tmp_path / f"internal/{index}.h5") for index in "10"]
    flags += ["--settings", "{}", "--num-images", "1500", "--shards", *shards]
    monkeypatch.setattr(sys, "argv", ["preprocess", *flags])
    preprocess.main()
    assert "warning: 1437 training images, and num_images is declared as 1500" in capsys.readouterr().err
    for path, want in zip((out["train"], out["holdout"]), image_sets(digits.read(DIGITS), DIGITS)):
        got = ImageSet.read(path)
        np.testing.assert_array_equal(got.images, want.images)
        np.testing.assert_array_equal(got.labels, want.labels)
        assert got.provenance.settings["resolution"] == 8
    contents = Contents.read(out["contents"])
    assert sum(contents.train.values()) == 1437 and contents.stored == {"uint8 array": 1797}
    assert Image.open(out["sheet"]).size[0] > 100
    assert all(os.stat(path).st_mode & 0o777 == 0o600 for path in out.values())
