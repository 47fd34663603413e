"""Shards: what is written is read, damage is noticed, a failed reading leaves nothing."""

import numpy as np
import pytest
from sets import collection_of, record

from privimage.artifacts import ArtifactError
from privimage.data.reading import BLOCK, Part
from privimage.data.record import Collection, Problem, Record
from privimage.settings import Source
from privimage.shards import Shard, write_shard

SOURCE = Source(source="folder", resolution=4, channels=1)


META = {"resolution": 4, "channels": 1}


def write(path, count=12 * BLOCK + 5, index=0, of=1):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)

    def items():
        for number in range(count):
            if number % 10 == 9:
                yield Problem(f"{number}", "is torn", "mend it")
            else:
                split = "test" if number % 4 == 0 else "train"
                yield Record(f"{number}", number % 2, split, lambda number=number: images[number])

    part = Part(Collection("list", ("cat", "dog"), items), SOURCE, index, of)
    return images, write_shard(path, part, META)


def test_what_is_written_is_read(tmp_path):
    images, length = write(tmp_path / "x.shard")
    shard = Shard.read(tmp_path / "x.shard")
    kept = np.array([n for n in range(len(images)) if n % 10 != 9])
    assert length == len(kept)
    np.testing.assert_array_equal(shard.positions, kept)
    np.testing.assert_array_equal(shard.labels, kept % 2)
    np.testing.assert_array_equal(shard.is_test, kept % 4 == 0)
    assert shard.names([0, 9]) == ["0", "10"]
    assert [p for p, _ in shard.problems] == [n for n in range(len(images)) if n % 10 == 9]
    assert shard.problems[0][1] == Problem("9", "is torn", "mend it")
    assert shard.meta["num_items"] == len(images) and shard.seen.widths == [4, 4]


def test_stretches_are_single_blocks_in_order_and_give_the_images_back(tmp_path):
    images, _ = write(tmp_path / "x.shard", index=1, of=2)
    shard = Shard.read(tmp_path / "x.shard")
    seen = []
    for rows, pixels in shard.stretches():
        positions = shard.positions[rows]
        assert len(set(positions // BLOCK)) == 1
        np.testing.assert_array_equal(pixels[..., 0], images[positions])
        seen += positions.tolist()
    assert seen == shard.positions.tolist()


def test_a_shard_may_be_empty(tmp_path):
    assert write(tmp_path / "x.shard", count=3, index=1, of=2)[1] == 0
    assert list(Shard.read(tmp_path / "x.shard").stretches()) == []


def test_a_changed_pixel_and_a_cut_file_are_noticed(tmp_path):
    images, _ = write(tmp_path / "x.shard")
    content = (tmp_path / "x.shard").read_bytes()
    place = content.index(images[0].tobytes())
    (tmp_path / "x.shard").write_bytes(content[: place + 3] + bytes([content[place + 3] ^ 1]) + content[place + 4 :])
    with pytest.raises(ArtifactError, match="images do not match their checksum"):
        Shard.read(tmp_path / "x.shard")
    for cut in (0, 5, len(content) // 2):
        (tmp_path / "x.shard").write_bytes(content[:cut])
        with pytest.raises(ArtifactError, match="cannot be read|no shard"):
            Shard.read(tmp_path / "x.shard")


def test_a_reading_that_dies_leaves_nothing(tmp_path):
    def dies():
        raise MemoryError

    with pytest.raises(MemoryError):
        part = Part(collection_of(record(np.zeros((4, 4), np.uint8)), Record("y", 0, "train", dies)), SOURCE)
        write_shard(tmp_path / "x.shard", part, {})
    assert list(tmp_path.iterdir()) == []


def test_many_long_problems_and_names_fit(tmp_path):
    items = [Problem("x" * 200 + str(n), "y" * 200, "z") for n in range(2000)]
    items += [record(np.zeros((4, 4), np.uint8), name="ä\udcff" * 300)]
    write_shard(tmp_path / "x.shard", Part(collection_of(*items), SOURCE), META)
    shard = Shard.read(tmp_path / "x.shard")
    assert len(shard.problems) == 2000
    assert shard.names([0])[0].startswith("ä\\udcff")
