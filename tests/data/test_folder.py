"""Folders of images: every mode becomes 8 bits or is refused; the split depends on each image alone."""

import shutil

import numpy as np
import pytest
from PIL import Image

from privimage.data import folder
from privimage.errors import UserError
from privimage.settings import Source


def source(path, **changes):
    return Source(**{"source": "folder", "path": str(path), "resolution": 4, "channels": 3, **changes})


def noise(seed, size=(6, 6), channels=3):
    shape = (*size[::-1], channels) if channels > 1 else size[::-1]
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def fill(root, classes=("cat", "dog"), count=20):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            noise(100 * number + index).save(root / name / f"{index:02}.png")
    return root


def decoded(tmp_path, image, extension="png", **changes):
    """The pixels that the reader makes of one image, in a square of its own size."""
    (tmp_path / "train").mkdir(parents=True)
    (tmp_path / "test").mkdir()
    image.save(tmp_path / "train" / f"x.{extension}", **changes.pop("save", {}))
    noise(0).save(tmp_path / "test" / "y.png")
    changes = {"resolution": min(image.size), **changes}
    return folder.read(source(tmp_path, **changes), ("thing",))[0].images[0]


def test_classes_are_sub_folders_in_the_declared_order(tmp_path):
    fill(tmp_path)
    train, test = folder.read(source(tmp_path), ("dog", "cat"))
    assert train.class_names == ("dog", "cat")
    assert [a + b for a, b in zip(train.counts, test.counts)] == [20, 20]
    undeclared, _ = folder.read(source(tmp_path, num_classes=2))
    assert undeclared.class_names == ("cat", "dog")
    assert undeclared.counts == train.counts[::-1]


def test_train_and_test_folders_are_the_split(tmp_path):
    fill(tmp_path / "train", count=3)
    fill(tmp_path / "test", count=2)
    train, test = folder.read(source(tmp_path), ("cat", "dog"))
    assert (train.counts, test.counts) == ([3, 3], [2, 2])


def test_each_images_part_is_its_own_affair(tmp_path):
    fill(tmp_path / "a", count=40)
    train, test = folder.read(source(tmp_path / "a"), ("cat", "dog"))
    assert 4 <= len(test.labels) <= 30
    before = {image.tobytes() for image in test.images}
    for gone in sorted((tmp_path / "a" / "cat").iterdir())[::2]:
        gone.unlink()
    for path in sorted((tmp_path / "a" / "dog").iterdir()):
        path.rename(path.with_name(f"z{path.name}"))
    after_train, after_test = folder.read(source(tmp_path / "a"), ("cat", "dog"))
    assert {image.tobytes() for image in after_test.images} <= before
    assert not {image.tobytes() for image in after_train.images} & before
    assert after_test.counts[1] == test.counts[1]


def test_the_fraction_for_testing_is_met_on_average():
    falls = [folder._falls_to_test(str(index).encode(), 0.2) for index in range(5000)]
    assert abs(np.mean(falls) - 0.2) < 0.02


def test_one_declared_class_may_be_a_flat_folder(tmp_path):
    fill(tmp_path, classes=("all",), count=30)
    train, test = folder.read(source(tmp_path / "all"), ("thing",))
    assert train.class_names == ("thing",) and len(train.labels) + len(test.labels) == 30
    assert folder.read(source(tmp_path), ("all",))[0].counts == train.counts


def test_an_empty_class_is_read_as_empty(tmp_path):
    fill(tmp_path)
    (tmp_path / "eel").mkdir()
    assert folder.read(source(tmp_path), ("cat", "dog", "eel"))[0].counts[2] == 0


def test_folders_that_are_not_the_declared_classes_are_refused_with_the_list_to_paste(tmp_path):
    fill(tmp_path)
    for declared in (("cat",), ("cat", "dog", "eel"), ("cat", "Dog")):
        with pytest.raises(UserError, match=r'write `class_names: \["cat", "dog"\]`'):
            folder.read(source(tmp_path), declared)


def test_a_split_whose_classes_differ_is_refused(tmp_path):
    fill(tmp_path / "train", count=2)
    fill(tmp_path / "test", classes=("cat",), count=2)
    with pytest.raises(UserError, match=r"test has the class folders \['cat'\]"):
        folder.read(source(tmp_path), ("cat", "dog"))


def test_a_public_folder_has_the_declared_number_of_classes(tmp_path):
    fill(tmp_path)
    with pytest.raises(UserError, match="has 2 class folders; expected 3"):
        folder.read(source(tmp_path, num_classes=3))


def test_no_folder_no_images_and_no_test_images_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        folder.read(source(tmp_path / "absent"), ("cat",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="0 training images and 0 test images"):
        folder.read(source(tmp_path / "empty"), ("thing",))
    fill(tmp_path / "few", classes=("cat",), count=1)
    with pytest.raises(UserError, match="expected some of both"):
        folder.read(source(tmp_path / "few"), ("cat",))


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_bad_files_are_listed_once_all_together(tmp_path, extension):
    fill(tmp_path, count=5)
    whole = tmp_path / "whole"
    noise(7, (64, 64)).save(whole, format={"png": "PNG", "jpg": "JPEG"}[extension])
    (tmp_path / "cat" / f"cut.{extension}").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "dog" / "empty.png").write_bytes(b"")
    (tmp_path / "dog" / "deeper").mkdir()
    with pytest.raises(UserError) as caught:
        folder.read(source(tmp_path), ("cat", "dog"))
    message = str(caught.value)
    assert message.startswith("4 files are no images")
    for name in (f"cut.{extension}", "notes.txt", "empty.png", "deeper"):
        assert name in message


def test_an_error_names_ten_bad_files_at_most(tmp_path):
    fill(tmp_path, count=2)
    for index in range(14):
        (tmp_path / "cat" / f"bad{index:02}").write_text("no image")
    with pytest.raises(UserError, match="14 files .*bad09.*, and 4 more; mend") as caught:
        folder.read(source(tmp_path), ("cat", "dog"))
    assert "bad10" not in str(caught.value)


def test_hidden_files_are_skipped(tmp_path):
    fill(tmp_path)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_text("no image")
    train, test = folder.read(source(tmp_path), ("cat", "dog"))
    assert len(train.labels) + len(test.labels) == 40


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.full((4, 4), 40_000, np.uint16)),
        Image.fromarray(np.full((4, 4), 100_000, np.int32)),
        Image.fromarray(np.full((4, 4), 0.5, np.float32)),
    ],
    ids=["16 bit", "32 bit", "float"],
)
def test_deep_images_are_refused_by_name_never_saturated(tmp_path, image):
    with pytest.raises(UserError, match=r"x\.tiff \(mode .*; expected 8 bits"):
        decoded(tmp_path, image, "tiff")


def test_grey_and_colour_are_kept_or_converted(tmp_path):
    grey, colour = noise(1, channels=1), noise(2)
    np.testing.assert_array_equal(decoded(tmp_path / "a", grey, channels=1)[..., 0], np.asarray(grey))
    np.testing.assert_array_equal(decoded(tmp_path / "b", colour), np.asarray(colour))
    replicated = decoded(tmp_path / "c", grey)
    assert (replicated == np.asarray(grey)[..., None]).all()
    luma = np.asarray(colour) @ [0.299, 0.587, 0.114]
    assert np.abs(decoded(tmp_path / "d", colour, channels=1)[..., 0] - luma).max() <= 1


def test_bilevel_and_palette_images_become_what_they_show(tmp_path):
    bits = Image.fromarray(np.eye(4, dtype=bool))
    np.testing.assert_array_equal(decoded(tmp_path / "a", bits, channels=1)[..., 0], 255 * np.eye(4))
    palette = noise(3).quantize(8)
    np.testing.assert_array_equal(decoded(tmp_path / "b", palette), np.asarray(palette.convert("RGB")))


def test_cmyk_becomes_rgb(tmp_path):
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    np.testing.assert_array_equal(decoded(tmp_path, cyan, "tiff"), np.full((4, 4, 3), (0, 255, 255)))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_black_and_half_transparent_ones_darker(tmp_path, mode):
    grey = Image.new("L", (4, 4), 200)
    alpha = Image.fromarray(np.array([[0, 0, 255, 255]] * 2 + [[128] * 4] * 2, np.uint8))
    image = grey.convert(mode)
    image.putalpha(alpha)
    got = decoded(tmp_path, image, channels=1)[..., 0]
    np.testing.assert_allclose(got, np.asarray(grey) * (np.asarray(alpha) / 255.0), atol=1)


def test_a_transparent_colour_of_a_palette_becomes_black(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 0)
    got = decoded(tmp_path, palette, "png", save={"transparency": 0})
    assert got[0, 0].tolist() == [0, 0, 0] and got[1, 1].tolist() == [200, 100, 50]


def test_the_cameras_orientation_is_applied(tmp_path):
    image = noise(4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    got = decoded(tmp_path, image, "png", save={"exif": exif})
    np.testing.assert_array_equal(got, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_the_centre_of_the_short_side_is_kept(tmp_path):
    wide = noise(5, (10, 4))
    np.testing.assert_array_equal(decoded(tmp_path / "a", wide), np.asarray(wide)[:, 3:7])
    tall = noise(6, (4, 9))
    np.testing.assert_array_equal(decoded(tmp_path / "b", tall), np.asarray(tall)[2:6])


@pytest.mark.parametrize(("name", "filter"), [("box", 4), ("bilinear", 2), ("lanczos", 1)])
def test_the_resize_uses_the_filter_of_the_settings(tmp_path, name, filter):
    image = noise(8, (16, 16), 1)
    got = decoded(tmp_path, image, resolution=4, channels=1, filter=name)
    np.testing.assert_array_equal(got[..., 0], np.asarray(image.resize((4, 4), Image.Resampling(filter))))
    if name == "box":
        means = np.asarray(image).reshape(4, 4, 4, 4).mean((1, 3))
        assert np.abs(got[..., 0] - means).max() <= 1


@pytest.mark.parametrize("limit", [50, 20])
def test_an_image_of_too_many_pixels_is_an_error(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # one is a warning of Pillow's, the other an error
    with pytest.raises(UserError, match=r"x\.png .*decompression bomb"):
        decoded(tmp_path, noise(9, (8, 8)))


def test_copies_of_one_image_fall_to_one_part(tmp_path):
    fill(tmp_path, count=20)
    for path in list((tmp_path / "cat").iterdir()):
        shutil.copy(path, tmp_path / "cat" / f"copy_{path.name}")
    train, test = folder.read(source(tmp_path), ("cat", "dog"))
    parts = [{image.tobytes() for image in part.images} for part in (train, test)]
    assert not parts[0] & parts[1]
