"""The stage `semantics`: agreement that was put in, chance in closed form and by drawing, the votes without noise."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from privimage import semantics
from privimage.artifacts import ImageSet, Provenance, QueryResult, Subset, Weights, sha256
from privimage.checkpoints import flatten
from privimage.classifiers.resnet import ResNet
from privimage.classifiers.votes import histogram
from privimage.errors import UserError
from privimage.measurements import Semantics
from privimage.privacy.event import Event
from privimage.schema import plain
from privimage.settings import ClassifierSettings

MADE_BY = Provenance("semantics", semantics.VERSION)
NAMES, PUBLIC = ("cat", "ship"), ["tabby", "tiger_cat", "liner", "wing", "junco"]
SUBSET = Subset("query", {"cat": ["tabby", "tiger_cat"], "ship": ["liner", "wing"]}, Provenance("select", 1))
QUERY = QueryResult([[0.0] * 5] * 2, list(NAMES), PUBLIC, 2, 2**0.5, Event("gaussian", 1.0), True, MADE_BY)


class Says(nn.Module):
    """A classifier that sees, in an image whose first pixel is i, the public class i first and class i + 1 next."""

    def forward(self, x):
        first = ((x[:, 0, 0, 0] + 1) * 127.5).round().long()
        return 2 * torch.eye(5)[first] + torch.eye(5)[(first + 1) % 5]


def images(*seen, names=NAMES):
    """Images of each class in turn, by what the classifier sees in them."""
    pixels = np.zeros((sum(map(len, seen)), 2, 2, 1), np.uint8)
    pixels[:, 0, 0, 0] = np.concatenate(seen)
    return ImageSet(pixels, np.repeat(np.arange(len(seen)), [len(row) for row in seen]), names, "made")


TRAIN, TEST = images([0, 0, 2], [3]), images([0, 1, 1, 4], [2, 0])


def run(train=TRAIN, test=TEST, subset=SUBSET, query=QUERY, vectors=None):
    return semantics.run(train, test, Says(), PUBLIC, subset, query, vectors, MADE_BY)


def test_agreement_is_what_was_put_in():
    found = run()
    assert found.agreement == {"cat": 0.75, "ship": 0.5} and found.chance == 0.4


def test_chance_is_the_mean_over_random_selections():
    rng, drawn = np.random.default_rng(0), []
    for _ in range(300):
        chosen = np.array(PUBLIC)[rng.permutation(5)[:4]].reshape(2, 2).tolist()
        drawn.append(list(run(subset=replace(SUBSET, classes=dict(zip(NAMES, chosen)))).agreement.values()))
    np.testing.assert_allclose(np.mean(drawn, axis=0), run().chance, atol=0.07)


def test_the_histogram_is_the_querys_without_noise():
    found = run()
    assert found.histogram == [[2, 2, 1, 1, 0], [0, 0, 0, 1, 1]]  # two votes an image
    assert found.histogram == histogram(TRAIN, Says(), 5, QUERY.top_k).tolist()
    assert run(query=None).histogram == []  # a method that reads no query


def test_a_class_without_test_images_is_left_out():
    assert run(test=images([0], [])).agreement == {"cat": 1.0}


def test_cosines_need_a_file_and_name_what_is_unknown():
    assert run().cosine == {} and "semantics.word_vectors" in run().note
    vectors = {"cat": np.array([1.0, 0]), "tabby": np.array([2.0, 0]), "tiger_cat": np.array([0, 1.0]), "liner": None}
    found = run(vectors={**vectors, "liner": np.ones(2)})
    assert found.cosine == {"cat": 0.5} and found.note == ""
    assert found.unknown == ["ship", "wing"]


def test_one_class_is_enough():
    whole = Subset("query", {"all": ["tabby"]}, MADE_BY)
    seen = images([0, 0, 1, 0], names=("all",))
    assert run(seen, seen, whole, replace(QUERY, class_names=["all"])).agreement == {"all": 0.75}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"cat": ["tabby"]}, "1 classes"),
        ({"cat": ["tabby"], "ship": ["ferry"]}, "1 unknown"),
        ({"cat": [], "ship": []}, "selects no classes"),
    ],
)
def test_a_subset_of_other_classes_is_refused(classes, message):
    with pytest.raises(UserError, match=message):
        run(subset=replace(SUBSET, classes=classes))


@pytest.mark.parametrize("with_query", [True, False])
def test_from_files_to_file(tmp_path, monkeypatch, with_query):
    settings = ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4)
    network = {"settings": plain(settings), "channels": 1, "num_classes": 5, "resolution": 8}
    tensors = flatten("raw", ResNet(settings, 1, 5).state_dict())
    classifier = Weights("classifier", tensors, network, {"class_names": PUBLIC}, Provenance("classifier", 1))
    rng = np.random.default_rng(0)
    noise = ImageSet(rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8), np.arange(30) % 2, NAMES, "made")
    flags = {"train": tmp_path / "internal/train.h5", "test": tmp_path / "internal/test.h5"}
    for name, artifact in {"classifier": classifier, "subset": SUBSET, "query": QUERY}.items():
        flags[name] = tmp_path / name
        artifact.write(flags[name])
    noise.write(flags["train"])
    noise.write(flags["test"])
    (tmp_path / "vectors.txt").write_text("cat 1 0\ntabby 1 1\nship 0 1\nliner 0 2\n")
    flags |= {
        "result": tmp_path / "internal/semantics.json",
        "settings": json.dumps({"word_vectors": str(tmp_path / "vectors.txt")}),
    }
    if not with_query:
        del flags["query"]
    monkeypatch.setattr(sys, "argv", ["semantics", *(str(p) for k, v in flags.items() for p in (f"--{k}", v))])
    semantics.main()
    found = Semantics.read(flags["result"])
    assert found.cosine == {"cat": pytest.approx((0.5**0.5 + 1) / 2), "ship": pytest.approx(1.0)}
    assert found.unknown == ["wing"] and bool(found.histogram) == with_query and not found.private
    assert ("query" in found.provenance.parents) == with_query
    assert sha256(flags["train"]) not in flags["result"].read_text()
