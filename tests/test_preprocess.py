"""Preprocessing: declared classes are checked, declared counts only doubted; the stage writes two whole sets."""

import json
import sys

import numpy as np
import pytest

from privimage import preprocess
from privimage.artifacts import ImageSet
from privimage.errors import UserError
from privimage.settings import Source

DIGITS = Source(source="digits", resolution=8, channels=1)
NAMES = tuple("0123456789")


def stage(monkeypatch, tmp_path, source, num_images=None):
    flags = ["--settings", json.dumps(source), "--train", str(tmp_path / "train.h5")]
    flags += ["--holdout", str(tmp_path / "internal" / "test.h5")]
    flags += ["--class-names", json.dumps(NAMES), "--num-images", str(num_images)] if num_images else []
    monkeypatch.setattr(sys, "argv", ["preprocess", *flags])
    preprocess.main()
    return ImageSet.read(tmp_path / "train.h5"), ImageSet.read(tmp_path / "internal" / "test.h5")


def test_the_stage_writes_both_sets(monkeypatch, tmp_path, capsys):
    train, test = stage(monkeypatch, tmp_path, {"source": "digits", "resolution": 8, "channels": 1}, 1437)
    wanted = preprocess.run(DIGITS, NAMES)
    for got, want in zip((train, test), wanted):
        np.testing.assert_array_equal(got.images, want.images)
        np.testing.assert_array_equal(got.labels, want.labels)
    assert "warning" not in capsys.readouterr().err


def test_the_stage_warns_of_a_wrong_number_and_goes_on(monkeypatch, tmp_path, capsys):
    train, _ = stage(monkeypatch, tmp_path, {"source": "digits", "resolution": 8, "channels": 1}, 1500)
    assert len(train.labels) == 1437
    assert "warning: 1437 training images, and num_images is declared as 1500" in capsys.readouterr().err


def test_a_public_set_needs_no_declaration(monkeypatch, tmp_path):
    row = {"source": "glyphs", "resolution": 8, "channels": 1, "num_classes": 3, "images_per_class": 12}
    train, val = stage(monkeypatch, tmp_path, row)
    assert (train.counts, val.counts) == ([10] * 3, [2] * 3)


def test_other_classes_than_the_declared_are_refused_with_the_list_to_paste():
    with pytest.raises(UserError, match=r'Write `class_names: \["0", "1", .*"9"\]`'):
        preprocess.run(DIGITS, NAMES[::-1])


def test_an_unknown_source_is_refused():
    with pytest.raises(UserError, match="`cifar`; expected one of digits, folder, glyphs"):
        preprocess.run(Source(source="cifar", resolution=8, channels=1))


def test_an_empty_class_is_doubted():
    images = ImageSet(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 2]), ("a", "b", "c"), "folder")
    assert list(preprocess.doubts(images, 2)) == ['class "b" has no training image.']
