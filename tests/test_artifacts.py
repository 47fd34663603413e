"""Artifacts: what is written is read back; what is damaged is refused; a file is whole or absent; internal is shut."""

import stat
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from privimage import artifacts as a
from privimage import measurements as m
from privimage.feature_sets import FeatureSet
from privimage.privacy.event import Event

MADE_BY = a.Provenance("stage", 3, {"rate": 0.1, "sizes": [1, 2]}, {"query": "ab" * 32})
EVENT = Event("poisson_gaussian", 1.5, 0.25, 80)
IMAGES = a.ImageSet(
    np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8),
    np.array([0, 1, 2, 1, 1, 0, 0]),
    ("cat", "dög", "eel"),
    "folder",
)
WEIGHTS = a.Weights(
    "classifier",
    {"raw.weight": torch.randn(3, 5), "raw.steps": torch.tensor(7), "ema.weight": torch.ones(2, dtype=torch.bool)},
    {"channels": 1, "settings": {"block": "basic"}},
    {"class_names": ["cat", "dög"], "validation_accuracy": 0.912},
    MADE_BY,
)
JSON = {
    "query": a.QueryResult([[1.5, -2.0]], ["0"], ["letter a", "letter b"], 2, 2**0.5, EVENT, True, MADE_BY),
    "subset": a.Subset("query", {"0": ["letter a"], "1": []}, MADE_BY),
    "privacy": a.PrivacyStatement(
        9.99, 1e-5, 10.0, "add_or_remove_one", [EVENT, Event("gaussian", 10.0)], 12.5, 2, 21.0, 1437,
        [a.Accountant("pld", "0.6.0", 9.99)], True, ["the labels"], MADE_BY,
    ),
    "quality": m.Quality("classifier", {"fd_classifier": 12.25}, 3000, 1437, "train", MADE_BY),
    "accuracy": m.Accuracy({"cnn": {"values": [0.5], "mean": 0.5, "std": 0.0}}, 0.5, "last-epoch", 30, 36, MADE_BY),
    "memorisation": m.Memorisation("classifier", 0.5, [0.4, 0.6], {"synthetic_to_train": [1.0]}, [], 9, 9, MADE_BY),
    "membership": m.Membership(0.5, [0.4, 0.6], {"0.05": {"rate": 0.1}}, [[0.0, 0.0]], {"0.1": 0.5}, 9, 9, MADE_BY),
    "audit": m.Audit(9.9, 1e-5, 2.5, 0.95, 1000, 200, 190, EVENT.as_json(), MADE_BY),
    "semantics": m.Semantics([[1.0, 2.0]], {"0": 0.5}, 0.1, {}, "no vectors", MADE_BY),
}  # fmt: skip
FEATURES = FeatureSet(
    "classifier", "ab" * 32, "none", np.ones((3, 2), np.float32), np.zeros((3, 0), np.float32), np.array([0, 1, 0]),
    np.array([2, 0, 1]), np.array([0.5, 1.5]), np.eye(2), ("cat", "dög"), "", MADE_BY,
)  # fmt: skip
ALL = {"images": IMAGES, "weights": WEIGHTS, "features": FEATURES, **JSON}


def read(path, artifact):
    return type(artifact).read(path, *([artifact.kind] if isinstance(artifact, a.Weights) else []))


def same(one, other):
    if isinstance(one, (np.ndarray, torch.Tensor)):
        return type(other) in (type(one), np.memmap) and one.dtype == other.dtype and bool((one == other).all())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (a.ImageSet, a.Weights, FeatureSet)):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one == other


@pytest.mark.parametrize("name", ALL)
def test_what_is_written_is_read_back(name, tmp_path):
    ALL[name].write(tmp_path / "deep" / "file")
    assert same(ALL[name], read(tmp_path / "deep" / "file", ALL[name]))


@pytest.mark.parametrize("name", ALL)
def test_no_flipped_bit_passes(name, tmp_path):
    path = tmp_path / "file"
    ALL[name].write(path)
    good = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:  # 1e-05 and 1E-05 are one number: a flip may also change nothing at all
            assert same(ALL[name], read(path, ALL[name]))
        except a.ArtifactError:
            refused += 1
    assert refused >= 198


@pytest.mark.parametrize("name", ALL)
def test_a_truncated_file_is_refused(name, tmp_path):
    path = tmp_path / "file"
    ALL[name].write(path)
    good = path.read_bytes()
    for length in (0, 1, 9, len(good) // 2, len(good) - 2):
        path.write_bytes(good[:length])
        with pytest.raises(a.ArtifactError):
            read(path, ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_an_absent_file_and_a_file_of_another_kind_are_refused(name, tmp_path):
    with pytest.raises(a.ArtifactError, match="does not exist"):
        read(tmp_path / "absent", ALL[name])
    for other in ALL:
        if other != name:
            path = tmp_path / other
            ALL[other].write(path)
            with pytest.raises(a.ArtifactError):
                read(path, ALL[name])


def test_weights_of_the_other_kind_are_refused_by_name(tmp_path):
    WEIGHTS.write(tmp_path / "w")
    with pytest.raises(a.ArtifactError, match="`classifier`; expected `diffusion`"):
        a.Weights.read(tmp_path / "w", "diffusion")


def test_a_group_of_weights_loses_its_prefix():
    assert WEIGHTS.group("raw").keys() == {"weight", "steps"}
    assert WEIGHTS.group("ema").keys() == {"weight"}


def test_an_image_set_without_its_checksum_is_refused(tmp_path):
    IMAGES.write(tmp_path / "x.h5")
    (tmp_path / "x.h5.sha256").unlink()
    with pytest.raises(a.ArtifactError, match="x.h5.sha256 does not exist"):
        a.ImageSet.read(tmp_path / "x.h5")


def test_an_image_set_is_memory_mapped_and_may_be_empty(tmp_path):
    IMAGES.write(tmp_path / "x.h5")
    assert isinstance(a.ImageSet.read(tmp_path / "x.h5").images, np.memmap)
    empty = a.ImageSet(IMAGES.images[:0], IMAGES.labels[:0], IMAGES.class_names, "folder")
    empty.write(tmp_path / "empty.h5")
    assert a.ImageSet.read(tmp_path / "empty.h5").images.shape == (0, 4, 4, 3)
    assert empty.counts == [0, 0, 0] and IMAGES.counts == [3, 3, 1]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 5, 3), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4, 2), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, -1])),
    ],
)
def test_an_image_set_of_the_wrong_shape_type_or_labels_cannot_exist(images, labels):
    with pytest.raises(a.ArtifactError):
        a.ImageSet(images, labels, ("only",), "folder")


def test_a_curve_is_read_back_and_text_in_it_refused(tmp_path):
    curve = m.Curve(("step", "loss"), ((1.0, 0.5), (2.0, 0.25)))
    curve.write(tmp_path / "c.csv")
    assert m.Curve.read(tmp_path / "c.csv") == curve
    (tmp_path / "c.csv").write_text("step,loss\n1,0.5\n2,0.25\n")  # of a version that sealed nothing
    assert m.Curve.read(tmp_path / "c.csv") == curve
    (tmp_path / "c.csv").write_text("step,loss\n1,much\n")
    with pytest.raises(a.ArtifactError):
        m.Curve.read(tmp_path / "c.csv")


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        m.Quality("c", {"fd": float("nan")}, 1, 1, "train", MADE_BY).write(tmp_path / "quality.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "x"), r"file cannot be written \(No space left on device\); make room"),
        (ValueError("x"), None),
        (RuntimeError("x"), None),
        (KeyboardInterrupt(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, error, told):
    path = tmp_path / "file"
    a.write_text(path, "old")

    def fill(temporary: Path) -> None:
        temporary.write_text("half of the ne")
        raise error

    with pytest.raises(type(error) if told is None else a.ArtifactError, match=told):
        a.write_file(path, fill)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_room_is_asked_for_before_anything_is_written(tmp_path):
    path = tmp_path / "x"
    path.touch()
    with pytest.raises(OSError, match="No space left|too large"):
        a.reserve(path, 2**62)


@pytest.mark.parametrize("name", ALL)
def test_internal_files_and_folders_are_their_owners_alone(name, tmp_path):
    ALL[name].write(tmp_path / "internal" / "method" / "file")
    assert stat.S_IMODE((tmp_path / "internal").stat().st_mode) == 0o700
    for path in (tmp_path / "internal" / "method").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_named_internal_that_others_could_enter_is_shut(tmp_path):
    (tmp_path / "internal").mkdir(mode=0o755)
    a.write_text(tmp_path / "internal" / "x" / "file", "secret")
    assert stat.S_IMODE((tmp_path / "internal").stat().st_mode) == 0o700


def test_other_files_are_for_everybody(tmp_path):
    a.write_bytes(tmp_path / "public" / "file", b"x")
    assert stat.S_IMODE((tmp_path / "public" / "file").stat().st_mode) == 0o644


def test_the_checksum_of_tensors_sees_names_shapes_types_and_bytes():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    variants = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) + 1e-7},
        {"a": torch.zeros(2, 3)},
    ]
    sums = {a.tensors_sha256(tensors) for tensors in [base, *variants]}
    assert len(sums) == 1 + len(variants)
    assert a.tensors_sha256(base) == a.tensors_sha256(dict(reversed(base.items())))
    assert a.tensors_sha256({"a": torch.arange(6.0).reshape(2, 3).T}) == a.tensors_sha256(
        {"a": torch.arange(6.0).reshape(2, 3).T.contiguous()}
    )
