"""The stage `memorisation`: copies are caught, also few and noisy ones; noise and honest images raise no alarm."""

import json
import sys
import tracemalloc
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sets import image_sets

from privimage import memorisation
from privimage.artifacts import ImageSet, Provenance, Weights, sha256
from privimage.checkpoints import flatten
from privimage.classifiers.resnet import ResNet
from privimage.data import digits
from privimage.errors import UserError
from privimage.evaluation_settings import MemorisationSettings
from privimage.measurements import Memorisation
from privimage.metrics import nearness
from privimage.schema import plain
from privimage.settings import ClassifierSettings, Source

MADE_BY = Provenance("memorisation", memorisation.VERSION)
PIXELS = MemorisationSettings(feature_network="pixels")
NAMES = tuple(str(digit) for digit in range(10))


@pytest.fixture(autouse=True)
def fewer_deals(monkeypatch):
    """Intervals a little rougher, tests a lot faster."""
    monkeypatch.setattr(nearness, "NUM_DEALS", 100)


@cache
def real():
    """All of scikit-learn's digits."""
    train, test = image_sets(digits.read(source(), NAMES), source())
    return np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels])


def source():
    return Source(source="digits", resolution=8, channels=1)


def parts(*sizes, seed=0):
    """Disjoint random image sets."""
    images, labels = real()
    rows = np.split(np.random.default_rng(seed).permutation(len(labels)), np.cumsum(sizes))[: len(sizes)]
    return [ImageSet(images[row], labels[row], NAMES, "digits") for row in rows]


def with_images(images):
    return ImageSet(images, np.zeros(len(images), np.int64), NAMES, "synthetic")


def noised(images, seed=0):
    """The same images, every pixel off by about 8 of 255."""
    moved = images + np.random.default_rng(seed).normal(0, 8, images.shape)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def run(synthetic, train, test, settings=PIXELS):
    return memorisation.run(synthetic, train, test, None, settings, MADE_BY)


@pytest.mark.parametrize("change", [np.array, noised])
@pytest.mark.parametrize("sizes", [(800, 800), (1400, 350)])
def test_a_copy_of_the_training_set_is_caught(sizes, change):
    train, test = parts(*sizes)
    found = run(with_images(change(train.images)), train, test)
    diluted = (1 + sizes[1] / sizes[0]) / 2  # originals in a subset as large as the test set, half of the other images
    assert found.closer_to_train == pytest.approx(diluted, abs=0.04) and found.interval[0] > 0.55
    assert found.closest["share"] == 1 and found.closest["interval"][0] > 0.75
    assert found.num_duplicates == {"train": sizes[0] if change is np.array else 0, "test": 0}


@pytest.mark.parametrize("sizes", [(600, 600), (900, 220)])
def test_a_tenth_of_copies_is_caught_among_the_closest(sizes):
    train, test, unseen = parts(*sizes, 500)
    mixed = np.concatenate([noised(train.images[:50]), unseen.images[:450]])
    found = run(with_images(mixed), train, test)
    assert found.closest["num_images"] == 25 and found.closest["share"] == 1
    assert found.closest["interval"][0] > 0.6
    assert {entry["synthetic"] for entry in found.nearest} <= set(range(50))
    for entry in found.nearest:
        assert entry["train"][0] == entry["synthetic"] and len(set(entry["train"])) == 3


@pytest.mark.slow
def test_images_that_were_never_copied_raise_no_alarm():
    """Each of three shares misses one half in 5 % of cases: of 20 splits, 5 misses of one are one case in 400."""
    missed = np.zeros(3)
    for seed in range(20):
        synthetic, train, test = parts(200, 500, 250, seed=seed)
        found = run(synthetic, train, test)
        intervals = (found.interval, found.closest["interval"], found.control["interval"])
        missed += [not low <= 0.5 <= high for low, high in intervals]
    assert missed.max() < 5


def test_noise_raises_no_alarm():
    train, test = parts(1000, 500)
    noise = np.random.default_rng(1).integers(0, 256, (300, 8, 8, 1), dtype=np.uint8)
    found = run(with_images(noise), train, test)
    assert found.interval[0] <= 0.5 <= found.interval[1]
    assert found.closest["interval"][0] <= 0.5 <= found.closest["interval"][1]


def test_the_control_tells_when_test_images_are_others():
    train, test = parts(800, 400)
    darker = ImageSet(test.images // 2, test.labels, NAMES, "digits")
    assert run(train, train, darker).control["interval"][1] < 0.5  # its own kind is nearer, and no copy explains it


def test_distances_and_counts_are_of_as_many_of_either():
    synthetic, train, test = parts(300, 900, 300)
    found = run(synthetic, train, test, MemorisationSettings(feature_network="pixels", num_images=120))
    assert (found.num_synthetic, found.num_reference) == (120, 300)
    assert all(len(row) == 101 and row == sorted(row) for row in found.distances.values())
    medians = [row[50] for row in found.distances.values()]
    assert max(medians) < 1.1 * min(medians)  # three samples of one kind


def test_half_of_copies_is_seen_with_a_tenth_as_many_test_images():
    train, test, unseen = parts(400, 40, 500)
    found = run(with_images(np.concatenate([noised(train.images), unseen.images[:400]])), train, test)
    assert found.weighed["interval"][0] > 0.5 and found.weighed["num_images"] == 800


def test_images_that_real_ones_repeat_are_no_copies_and_a_single_one_is():
    train, test, unseen = parts(400, 100, 50)
    blank = np.zeros_like(train.images[:1])
    blanks = replace(train, images=np.concatenate([train.images, blank.repeat(4, axis=0)]), labels=np.zeros(404, int))
    counted, copies = memorisation.duplicates(blank.repeat(9, axis=0), blanks.images, test.images)
    assert counted == {"train": 9, "test": 0} and copies == {"num_train": 0, "num_test": 0, "p_value": 1.0}
    both = np.concatenate([train.images[[7, 7, 8, 9]], test.images[:1], unseen.images])
    counted, copies = memorisation.duplicates(both, train.images, test.images)
    assert counted == {"train": 4, "test": 1}
    assert (copies["num_train"], copies["num_test"]) == (3, 1)  # as sets of these sizes have it by chance
    assert copies["p_value"] == pytest.approx(1 - 0.2**4 - 4 * 0.8 * 0.2**3 - 6 * 0.8**2 * 0.2**2)


@pytest.mark.slow
def test_pixels_take_no_memory_beside_the_images():
    rng = np.random.default_rng(0)
    synthetic, train, test = (rng.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8) for n in (20, 3000, 50))
    assert memorisation.features(train, None).base is not None  # a view
    tracemalloc.start()
    found = nearness.nearest(*(memorisation.features(images, None) for images in (synthetic, train)), 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * train.nbytes  # all of it as float32 would be four times as much, and blocks are of this size
    flat = [images.reshape(len(images), -1).astype(np.float64) for images in (synthetic, train)]
    exact = np.linalg.norm(flat[0][:, None] - flat[1][None, :500], axis=2).min()
    assert found.distances.min() <= exact


def test_one_synthetic_image_and_two_test_images_are_enough():
    one, train, test = parts(1, 1, 2)
    found = run(one, train, test)
    assert found.nearest[0]["train"] == [0] and 0 <= found.interval[0] <= 0.5 <= found.interval[1] <= 1


def test_what_does_not_fit_is_refused():
    synthetic, train, test = parts(3, 3, 1)
    with pytest.raises(UserError, match="2 test images"):
        run(synthetic, train, test)
    with pytest.raises(UserError, match="expected the same"):
        run(with_images(np.zeros((3, 4, 4, 1), np.uint8)), train, test)


@pytest.mark.parametrize("network", ["classifier", "pixels"])
def test_from_files_to_file(tmp_path, monkeypatch, network):
    settings = ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4)
    description = {"settings": plain(settings), "channels": 1, "num_classes": 3, "resolution": 8}
    tensors = flatten("raw", ResNet(settings, 1, 3).state_dict())
    Weights("classifier", tensors, description, {}, Provenance("classifier", 1)).write(tmp_path / "classifier")
    flags = {"classifier": tmp_path / "classifier", "result": tmp_path / "internal/memorisation.json"}
    for name, images in zip(("synthetic", "train", "test"), parts(40, 60, 50)):
        flags[name] = tmp_path / ("" if name == "synthetic" else "internal") / f"{name}.h5"
        images.write(flags[name])
    flags["settings"] = json.dumps({"feature_network": network})
    monkeypatch.setattr(sys, "argv", ["memorisation", *(str(p) for k, v in flags.items() for p in (f"--{k}", v))])
    memorisation.main()
    found = Memorisation.read(flags["result"])
    assert (found.feature_network, found.num_synthetic, found.private) == (network, 40, False)
    assert set(found.provenance.parents) == {"synthetic", "classifier"} - (
        {"classifier"} if network == "pixels" else set()
    )
    text = flags["result"].read_text()
    assert sha256(flags["train"]) not in text and sha256(flags["test"]) not in text
