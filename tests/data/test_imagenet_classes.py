"""ImageNet's classes: the table agrees with real images' names, and its numbering with the published labels."""

import re
import zipfile

import pytest

from privimage.data.imagenet_classes import by_devkit_id, names_by_wnid, wnid_of_devkit_id

FIRST_TEN = (
    "kit fox", "English setter", "Siberian husky", "Australian terrier", "English springer", "grey whale",
    "lesser panda", "Egyptian cat", "ibex", "Persian cat",
)  # fmt: skip
# Of the first ten validation images: the devkit's labels (ILSVRC2012_ID), and those of Caffe's val.txt, which count the
# sorted WordNet ids from 0. Two published numberings of the same ten classes.
DEVKIT_LABELS = (490, 361, 171, 822, 297, 482, 13, 704, 599, 164)
SORTED_LABELS = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)


def test_there_are_1000_classes_in_the_order_of_their_ids_with_names_of_their_own():
    names = names_by_wnid()
    assert len(names) == len(set(names.values())) == 1000
    assert list(names) == sorted(names)
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in names)
    assert all(name == name.strip() and name.isprintable() and "_" not in name for name in names.values())


def test_classes_that_share_a_name_carry_their_ids():
    names = names_by_wnid()
    doubled = {wnid: name for wnid, name in names.items() if wnid in name}
    assert doubled == {
        "n02012849": "crane (n02012849)",
        "n03126707": "crane (n03126707)",
        "n03710637": "maillot (n03710637)",
        "n03710721": "maillot (n03710721)",
    }


def test_the_devkits_numbering_is_a_permutation_that_starts_with_the_kit_fox():
    assert sorted(wnid_of_devkit_id()) == sorted(names_by_wnid())
    assert by_devkit_id()[:10] == FIRST_TEN


def test_the_devkits_numbering_agrees_with_the_published_labels_of_validation_images():
    in_order = sorted(names_by_wnid())
    assert tuple(in_order.index(wnid_of_devkit_id()[label - 1]) for label in DEVKIT_LABELS) == SORTED_LABELS


@pytest.mark.data
def test_ids_and_names_are_those_of_the_real_images(real_data):
    with zipfile.ZipFile(real_data / "imagenet1000_sample64.zip") as archive:
        stems = [name.removesuffix(".jpg") for name in archive.namelist() if name.endswith(".jpg")]
    published = dict(stem.split("_", 1) for stem in stems)
    assert sorted(published) == list(names_by_wnid())
    for wnid, name in names_by_wnid().items():
        assert name.split(" (n")[0] == published[wnid].replace("_", " ")
