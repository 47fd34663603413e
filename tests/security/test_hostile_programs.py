"""Networks of users and artifacts of ours, altered by someone who knows every checksum: nothing in them is executed."""

import hashlib
import json
import pickle  # noqa: TID251 - to write what must be refused
import struct
import zipfile
from dataclasses import asdict

import h5py
import numpy as np
import pytest
import torch
from canary import SECRET, Payload, pickled
from safetensors.torch import save_file

from privimage.artifacts import ArtifactError, ImageSet, PrivacyStatement, Provenance, QueryResult, Subset, Weights
from privimage.checkpoints import Checkpoint
from privimage.data.published import INCEPTION
from privimage.errors import UserError
from privimage.feature_sets import FeatureSet
from privimage.metrics import torchscript
from privimage.metrics.feature_networks import load_network
from privimage.networks import NETWORKS, Network
from privimage.releasing import whitelist
from privimage.shards import END, MARK, Shard


class Saves(torch.nn.Module):
    """Writes a tensor to a path when it is asked for features."""

    path: str

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, x):
        torch.save(x, self.path)
        return x.mean(dim=[2, 3])


class SavesWhenLoaded(Saves):
    """Writes a tensor to a path as soon as it is loaded."""

    @torch.jit.export
    def __getstate__(self):
        return (self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(1), self.path)

    def forward(self, x):
        return x.mean(dim=[2, 3])


class Maps(Saves):
    """Reads another file as numbers."""

    def forward(self, x):
        return x.mean(dim=[2, 3]) + torch.from_file(self.path, False, 8).sum()


def scripted(module):
    return lambda path, outside: torch.jit.script(module(str(outside.marker))).save(str(path))


def maps(path, outside):
    torch.jit.script(Maps(str(outside.file))).save(str(path))


def edited(old, new):
    """TorchScript whose program was changed by hand, where torch's own compiler would not write it."""

    def build(path, outside):
        torch.jit.script(Saves(str(outside.marker))).save(str(path) + ".plain")
        with zipfile.ZipFile(str(path) + ".plain") as found, zipfile.ZipFile(path, "w") as written:
            for member in found.infolist():
                content = found.read(member)
                name = member.filename
                if name.endswith(".py"):
                    assert old in content
                    content, name = content.replace(old, new), name[:-3] + (".PY" if old == b"torch" else ".py")
                written.writestr(name, content)

    return build


def doubled(path, outside):
    """Two programs of one name: one reader may see the first, another the last."""
    torch.jit.script(torch.nn.Identity()).save(str(path))
    with zipfile.ZipFile(path, "a") as file:
        (name,) = [name for name in file.namelist() if name.endswith(".py")][:1]
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr(name, "class Identity(Module):\n  pass\n")


CALL = b"torch.save(x, path)"
NETWORK_FILES = {  # what is at the path of a user's network: (builder, what must be said)
    "a pickle": (lambda path, outside: path.write_bytes(pickled(outside)), "is not TorchScript"),
    "weights of torch.save that call": (
        lambda path, outside: torch.save({"a": Payload(outside.marker)}, path),
        "is not TorchScript",
    ),
    "TorchScript that writes": (scripted(Saves), "calls `save`"),
    "TorchScript that writes when it is loaded": (scripted(SavesWhenLoaded), "calls `save`"),
    "TorchScript that maps a file": (maps, "calls `from_file`"),
    "TorchScript that writes by a method": (edited(CALL, b"x.save(path)"), "calls `save`"),
    "TorchScript that writes by a text": (edited(CALL, b'getattr(torch, "save")(x, path)'), "calls `save`"),
    "TorchScript that asks for a library": (
        edited(CALL, b"ops.debugprims.load_tensor(path, [1], [1])"),
        "calls the library `debugprims`",
    ),
    "TorchScript that asks for a library by a text": (
        edited(CALL, b'getattr(ops, "debugprims").load_tensor(path, [1], [1])'),
        "reaches operators by text",
    ),
    "TorchScript of another case": (edited(b"torch", b"torch"), "calls `save`"),
    "TorchScript in another encoding": (
        edited(b"class Saves", b"# -*- coding: utf-7 -*-\r\nclass Saves"),
        "cannot be looked through",
    ),
    "TorchScript with two programs": (doubled, "is packed otherwise"),
    "a program that is none": (edited(CALL, b"("), "cannot be looked through"),
}


@pytest.mark.parametrize("name", NETWORK_FILES)
def test_a_users_network_computes_and_does_nothing_else(tmp_path, outside, name):
    build, told = NETWORK_FILES[name]
    build(tmp_path / "net.pt", outside)
    for file in outside.folder.glob("executed"):
        file.unlink()  # compiling may execute, loading may not
    outside.arm()
    with pytest.raises(UserError, match=told):
        load_network("mine", Network(path="net.pt"), tmp_path / "net.pt")
    assert outside.harmed() == set()


def test_torch_itself_would_execute_them(tmp_path, outside):
    """So the refusals above are worth something."""
    scripted(SavesWhenLoaded)(tmp_path / "net.pt", outside)
    outside.marker.unlink(missing_ok=True)
    torch.jit.load(str(tmp_path / "net.pt"))  # noqa: TID251 - written above
    assert outside.marker.exists()
    assert not torchscript.NO_OPERATORS & {"mean", "conv2d"}


def test_every_operator_of_torch_that_takes_a_path_is_refused():
    with_path = {
        schema.name.split("::")[1]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.split("::")[0] in torchscript.LIBRARIES
        for argument in schema.arguments
        if "str" in str(argument.type) and any(word in argument.name.lower() for word in ("file", "path", "url"))
    }
    assert with_path == {"save", "from_file"} <= torchscript.NO_OPERATORS


def test_what_lies_in_inceptions_place_is_not_run_unless_it_is_the_published_file(tmp_path, outside, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "privimage").mkdir()
    scripted(SavesWhenLoaded)(tmp_path / "privimage" / INCEPTION.name, outside)
    outside.marker.unlink(missing_ok=True)
    (tmp_path / "complete.json").write_text("[]")
    outside.arm()
    with pytest.raises(UserError, match="the published file has f58cb9b6"):
        load_network("inception", NETWORKS["inception"], tmp_path / "complete.json")
    assert outside.harmed() == set()


HEADERS = {
    "a pickle": pickled,
    "a header of nine exabytes": lambda outside: struct.pack("<Q", 2**63) + b"{}",
    "a header of -1 bytes": lambda outside: struct.pack("<q", -1) + b"{}",
    "a header of a hundred thousand levels": lambda outside: struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a tensor beyond the file": lambda outside: _safetensors({"a": _entry([2**40], [0, 2**42])}),
    "a tensor before the file": lambda outside: _safetensors({"a": _entry([4], [-8, 8])}),
    "metadata that are a pickle": lambda outside: _safetensors({"__metadata__": {"privimage": repr(pickled(outside))}}),
}


def _entry(shape, offsets):
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


def _safetensors(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


@pytest.mark.parametrize("name", HEADERS)
def test_weights_that_lie_are_refused_wherever_they_are_read(tmp_path, outside, name):
    checkpoint = Checkpoint(tmp_path, "x")
    path = checkpoint.path(0)
    path.write_bytes(HEADERS[name](outside))
    outside.arm()
    with pytest.raises(ArtifactError, match="cannot be read"):
        Weights.read(path, "diffusion")
    with pytest.raises(ArtifactError, match="cannot be read"):
        whitelist.check_safetensors(path)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.load()
    with pytest.raises(UserError, match="ResNet-56"):
        load_network("mine", Network(kind="resnet56"), path)
    assert outside.harmed() == set()


METADATA = json.dumps({"class_names": ["a"], "source": "synthetic", "counts": [4], "provenance": None})
PIXELS, LABELS = np.zeros((4, 4, 4, 1), np.uint8), np.zeros(4, np.int64)


def external(file, outside):
    file.create_dataset("labels", (4,), np.int64, external=[(str(outside.file), 0, h5py.h5f.UNLIMITED)])


def virtual(file, outside):
    layout = h5py.VirtualLayout((4,), np.int64)
    layout[:] = h5py.VirtualSource(str(outside.folder / "other.h5"), "labels", (4,))
    file.create_virtual_dataset("labels", layout)


IMAGE_SETS = {  # what another hand did to an image set
    "labels by a link to another file": lambda file, outside: file.__setitem__(
        "labels", h5py.ExternalLink(str(outside.folder / "other.h5"), "labels")
    ),
    "labels in another file": external,
    "labels as a virtual array of another file": virtual,
    "labels by a soft link": lambda file, outside: file.__setitem__("labels", h5py.SoftLink("/images")),
    "labels that are texts": lambda file, outside: file.__setitem__("labels", ["a", "b", "c", "d"]),
    "labels that are opaque bytes of a pickle": lambda file, outside: file.__setitem__(
        "labels", np.void(pickled(outside))
    ),
    "labels of a terabyte that are not there": lambda file, outside: file.create_dataset("labels", (2**37,), np.int64),
    "labels in chunks, packed a thousandfold": lambda file, outside: file.create_dataset(
        "labels", data=np.zeros(10**6, np.int64), compression="gzip"
    ),
    "metadata that are a pickle": lambda file, outside: file.attrs.__setitem__("metadata", np.void(pickled(outside))),
    "metadata of a hundred thousand levels": lambda file, outside: file.attrs.__setitem__("metadata", "[" * 60_000),
}


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_an_image_set_lies_in_its_own_file_or_is_refused(tmp_path, outside, name):
    with h5py.File(outside.folder / "other.h5", "w") as file:
        file["labels"], file["images"] = LABELS, PIXELS
    path = tmp_path / "images.h5"
    with h5py.File(path, "w") as file:
        file.attrs["metadata"] = METADATA
        file["images"] = PIXELS
        IMAGE_SETS[name](file, outside)
        if "labels" not in file and file.get("labels", getlink=True) is None:
            file["labels"] = LABELS
    (tmp_path / "images.h5.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    outside.arm()
    for read in (ImageSet.read, FeatureSet.read, whitelist.check_hdf5):
        with pytest.raises(ArtifactError) as error:
            read(path)
        assert SECRET.decode() not in str(error.value)
    assert outside.harmed() == set()


def test_a_plain_image_set_of_another_hand_is_read(tmp_path):
    """So the refusals above are not those of everything."""
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file.attrs["metadata"], file["images"], file["labels"] = METADATA, PIXELS, LABELS
    digest = hashlib.sha256((tmp_path / "images.h5").read_bytes()).hexdigest()
    (tmp_path / "images.h5.sha256").write_text(digest)
    assert ImageSet.read(tmp_path / "images.h5").counts == [4]


def test_the_objects_of_a_shard_are_not_unpickled(tmp_path, outside):
    import io

    buffer = io.BytesIO()
    np.savez(buffer, told=np.array([Payload(outside.marker)], object), names=np.zeros(0, np.uint8))
    content = buffer.getvalue()
    (tmp_path / "0.shard").write_bytes(content + END.pack(MARK, len(content)))
    outside.arm()
    with pytest.raises(ArtifactError, match="cannot be read"):
        Shard.read(tmp_path / "0.shard")
    assert outside.harmed() == set()


TEXTS = {
    "a pickle": pickled,
    "a hundred thousand levels": lambda outside: b"[" * 100_000,
    "a number of 5,000 digits": lambda outside: b'{"policy": ' + b"9" * 5000 + b"}",
    "a list": lambda outside: b"[]",
    "NaN where a seal stands": lambda outside: b'{"sha256": NaN, "provenance": {}}',
    "a key twice": lambda outside: b'{"sha256": "a", "sha256": {"b": 1}, "provenance": {"stage": 1}}',
    "keys that move the cursor": lambda outside: json.dumps({"sha256": "", "\x1b[2J": 1, "provenance": {}}).encode(),
    "a tag of Python": lambda outside: b'!!python/object/apply:os.mkdir ["x"]',
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_lie_are_one_sentence(tmp_path, outside, name):
    (tmp_path / "x.json").write_bytes(TEXTS[name](outside))
    outside.arm()
    readers = [kind.read for kind in (QueryResult, Subset, PrivacyStatement)]
    readers.append(lambda path: whitelist.check_json(path, whitelist.SUBSET))
    for read in readers:
        with pytest.raises(UserError) as error:
            read(tmp_path / "x.json")
        assert str(error.value).isprintable()
    assert outside.harmed() == set()


def test_a_weight_file_of_ours_with_a_pickle_for_a_network_builds_none(tmp_path, outside):
    """The settings that rebuild a network are names and numbers."""
    body = {"kind": "classifier", "network": {"settings": repr(pickle.dumps(Payload(outside.marker)))}, "facts": {}}
    body["provenance"] = asdict(Provenance("x", 1))
    save_file({"raw.a": torch.zeros(1)}, tmp_path / "w", metadata={"privimage": json.dumps({**body, "sha256": "0"})})
    outside.arm()
    with pytest.raises(ArtifactError, match="is damaged"):
        Weights.read(tmp_path / "w", "classifier")
    assert outside.harmed() == set()
