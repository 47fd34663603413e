"""Classes that are only numbered: one rule and one sentence, whatever file holds the numbers."""

import io

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sets import noise

from privimage.data import reader
from privimage.errors import UserError
from privimage.settings import Source

PLACE = {"folder": "7.png", "npz": "images[7]", "hdf5": "images[7]", "parquet": "set.parquet, row 7"}


def png(seed):
    buffer = io.BytesIO()
    noise(seed).save(buffer, "PNG")
    return buffer.getvalue()


def written(folder, form, labels):
    """Ten images with these labels in one of the forms; the source to read them."""
    path = folder / f"set.{form}"
    pixels = np.stack([np.asarray(noise(seed)) for seed in range(10)])
    if form == "folder":
        path.mkdir()
        for seed in range(10):
            (path / f"{seed}.png").write_bytes(png(seed))
        (path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{n}\n" for i, n in enumerate(labels)))
    elif form == "npz":
        np.savez(path, images=pixels, labels=labels)
    elif form == "hdf5":
        with h5py.File(path, "w") as file:
            file["images"], file["labels"] = pixels, labels
    else:
        pq.write_table(pa.table({"image": [png(seed) for seed in range(10)], "label": labels}), path)
    return path


def read(path, form, declared=None, **changes):
    source = Source(**{"source": form, "path": str(path), "resolution": 8, "channels": 3, **changes})
    return reader(form)(source, declared)


@pytest.mark.parametrize("form", PLACE)
def test_a_label_far_beyond_the_others_is_refused_where_it_stands(tmp_path, form):
    path = written(tmp_path, form, [0, 1, 0, 1, 0, 1, 0, 65535, 0, 1])
    with pytest.raises(UserError) as error:
        read(path, form)
    assert f"labels up to 65535 ({PLACE[form]}), but no image has 2, 3, 4 and 65530 more numbers" in str(error.value)
    for declared, changes in ((("cat", "dog"), {}), (None, {"num_classes": 2})):
        with pytest.raises(UserError) as error:
            read(path, form, declared, **changes)
        assert f"numbers its classes up to 65535 ({PLACE[form]}); expected at most 1, " in str(error.value)


@pytest.mark.parametrize("form", PLACE)
def test_numbers_with_gaps_need_someone_who_says_how_many_there_are(tmp_path, form):
    path = written(tmp_path, form, [1, 2, 3, 1, 2, 3, 1, 2, 3, 3])
    with pytest.raises(UserError, match=r"labels up to 3 \(.* and others\), but no image has 0; expected every number"):
        read(path, form)
    assert read(path, form, num_classes=4).class_names == ("0", "1", "2", "3")
    assert read(path, form, ("a", "b", "c", "d")).class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize("form", PLACE)
def test_numbers_without_gaps_are_classes(tmp_path, form):
    found = read(written(tmp_path, form, [0, 1, 2, 0, 1, 2, 0, 1, 2, 2]), form)
    assert found.class_names == ("0", "1", "2")
    assert [item.label for item in found.items()] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 2]


@pytest.mark.parametrize("form", PLACE)
def test_names_that_differ_in_case_alone_are_refused(tmp_path, form):
    labels = ["cat", "Cat"] * 5
    path = written(tmp_path, form, np.array(labels, object) if form == "hdf5" else labels)
    with pytest.raises(UserError, match="has the labels Cat and cat, which differ in case alone; expected one name"):
        read(path, form)
    assert read(path, form, ("cat", "Cat")).class_names == ("cat", "Cat")
