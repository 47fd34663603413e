"""The table of published sets: every source's files have addresses and checksums, the ones others publish too."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest

from privimage.data.placed import difference
from privimage.data.published import PUBLISHED, File
from privimage.settings import DRAWN, SourceName

FETCHED = {source: files for source, files in PUBLISHED.items() if not isinstance(files, str)}
FILES = [file for files in FETCHED.values() for file in files]
NOT_PUBLISHED = {"auto", "folder", "npz", "hdf5", "parquet", *DRAWN}


def test_every_source_that_has_a_name_of_its_own_is_in_the_table():
    assert set(PUBLISHED) == set(get_args(SourceName)) - NOT_PUBLISHED


def test_the_sets_without_a_log_in_can_be_fetched():
    assert set(FETCHED) == {"mnist", "fashion-mnist", "kmnist", "emnist", "cifar10", "cifar100", "eurosat"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.urls[0]}")
def test_a_file_has_addresses_that_end_in_its_name_and_a_checksum(file: File):
    assert file.urls and len(set(file.urls)) == len(file.urls)
    for url in file.urls:
        assert urlsplit(url).scheme in ("https", "http") and url.endswith(f"/{file.name}")
    assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum)
    assert file.size is None or file.size > 0
    assert file.name not in file.instead and Path(file.name).name == file.name


def test_no_two_files_share_a_checksum_or_a_place():
    assert len({file.checksum for file in FILES}) == len(FILES)
    assert all(len({file.name for file in files}) == len(files) for files in FETCHED.values())


def test_an_address_over_https_comes_first_where_there_is_one():
    schemes = [[urlsplit(url).scheme for url in file.urls] for file in FILES]
    assert all(those == sorted(those, reverse=True) for those in schemes)
    assert all("https" in those for those in schemes)


def test_the_checksums_are_those_that_torchvision_publishes():
    spec = find_spec("torchvision")
    if spec is None:
        pytest.skip("torchvision is not installed")
    loaders = Path(spec.origin).parent / "datasets"
    published = "".join((loaders / f"{name}.py").read_text() for name in ("mnist", "cifar", "eurosat"))
    assert [file.name for file in FILES if file.checksum.removeprefix("md5:") not in published] == []


def test_emnist_is_unpacked_into_four_files_for_each_of_its_six_parts():
    (archive,) = FETCHED["emnist"]
    assert len(set(archive.unpack)) == 24
    assert "gzip/emnist-letters-test-labels-idx1-ubyte.gz" in archive.unpack


@pytest.mark.parametrize("source", sorted(set(PUBLISHED) - set(FETCHED)))
def test_what_is_fetched_by_hand_says_where(source):
    assert re.search(r"https?://\S+", PUBLISHED[source])
    assert not PUBLISHED[source].endswith(".")


@pytest.mark.data
def test_the_real_files_of_mnist_are_the_published_ones(real_data):
    assert [difference(file, real_data / "mnist" / file.name) for file in FETCHED["mnist"]] == [""] * 4
