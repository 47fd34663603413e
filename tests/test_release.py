"""A release holds what it must and nothing else: canaries from what is internal are looked for, and found if there."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from canaries import search
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import save_file

from privimage import release, statements
from privimage.artifacts import (
    Accountant,
    ArtifactError,
    ImageSet,
    PrivacyStatement,
    Provenance,
    QueryResult,
    Subset,
    Weights,
    sha256,
)
from privimage.diffusion.autoencoder_settings import AutoencoderSettings
from privimage.errors import UserError
from privimage.gan.settings import GanFinetuneSettings, GanNetworkSettings
from privimage.generators import DRAWN_BY
from privimage.generators.evolution import EvolutionSettings
from privimage.measurements import Accuracy, Curve
from privimage.metrics.torchvision_cpu import prepare_torchvision
from privimage.privacy import accounting
from privimage.privacy.event import Event, noisy_choice, noisy_votes
from privimage.privacy.randomness import SecretKey
from privimage.releasing import whitelist
from privimage.releasing.image_folder import folder_names
from privimage.releasing.places import place_in
from privimage.schema import plain
from privimage.settings import FinetuneSettings, NetworkSettings, QuerySettings, SampleSettings, SelectSettings

NAMES = ("zebra", "<b>a|b</b>", "Ärzte")  # not in the order of the alphabet, and awkward in folders and Markdown
QUERY, TRAINING = noisy_votes(2, 10.0), Event("poisson_gaussian", 11.0, 0.28, 80)
VOTES = Event("discrete_gaussian", 9.0, num_steps=4)
DECLARED = {"num_images": 1437, "class_names": NAMES, "delta": 5e-5}
SENSITIVE = np.random.default_rng(99).integers(0, 256, (30, 8, 8, 1), np.uint8)
CANARIES = {
    "an image": SENSITIVE[0].tobytes(),
    "the last image": SENSITIVE[-1].tobytes(),
    "a true count": 70481,
    "a path": "/srv/canary-4711/patients",
    "a loss": 0.918274,
    "a metric": 0.736451829,
    "a key": SecretKey.from_seed(4711).secret,
}
PATH = CANARIES["a path"]


def sealed(path: Path, change) -> None:
    """The JSON artifact is changed by hand, by someone who knows how to compute its checksum."""
    body = json.loads(path.read_text())
    del body["sha256"]
    change(body)
    body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(body))


@pytest.fixture
def quick(monkeypatch):
    """An accountant that answers at once."""

    def stub(events, delta, *, relation="add_or_remove_one", images_per_unit=1):
        return sum(1 / event.noise_multiplier for event in events) * images_per_unit * 1.5

    monkeypatch.setattr(accounting, "epsilon", stub)


def statement(events: list[Event], parents: dict[str, str], **changes) -> PrivacyStatement:
    given = {
        "epsilon": 0.9994,
        "delta": 5e-5,
        "target_epsilon": 1.0,
        "neighboring_relation": "add_or_remove_one",
        "events": events,
        "epsilon_replace_one": 1.9,
        "images_per_unit": 1,
        "epsilon_per_unit": 0.9994,
        "num_images": 1437,
        "accountants": [Accountant("PLD (dp-accounting)", "0.6.0", 0.9994)],
        "private": True,
        "not_covered": ["What lies in a folder named `internal` <b>has no guarantee</b>."],
        "provenance": Provenance("finetune", 2, plain(FinetuneSettings()), parents),
    }
    return PrivacyStatement(**{**given, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The artifacts of one release, and beside them all that must not leave, with a canary in each."""
    internal, state = tmp_path / "internal", tmp_path / "state"
    ImageSet(SENSITIVE, np.arange(30) % 3, NAMES, PATH).write(internal / "train.h5")
    one = {"values": [CANARIES["a metric"]], "mean": CANARIES["a metric"], "std": 0.0}
    measured = Accuracy({"cnn": one}, CANARIES["a metric"], PATH, 30, CANARIES["a true count"], Provenance("x", 1))
    measured.write(internal / "accuracy.json")
    Curve(("step", "loss"), ((0.0, CANARIES["a loss"]),)).write(internal / "training.csv")
    state.mkdir()
    (state / "key").write_bytes(CANARIES["a key"])

    given = plain(QuerySettings())
    public = ["A", "B", "C", "D"]
    QueryResult(
        np.zeros((3, 4)).tolist(), list(NAMES), public, 2, 2**0.5, QUERY, True, Provenance("query", 1, given)
    ).write(tmp_path / "query.json")
    parents = {"query": sha256(tmp_path / "query.json")}
    chosen = {name: [letter] for name, letter in zip(NAMES, public)}
    settings = {**plain(SelectSettings()), "seed": 0}
    Subset("query", chosen, Provenance("select", 1, settings, parents)).write(tmp_path / "subset.json")
    parents |= {"pretrained": "0" * 64, "subset": sha256(tmp_path / "subset.json")}
    write_private(tmp_path, parents)
    return tmp_path


def write_private(folder, parents, kind="diffusion", trained=None, network=None, tensors=None, event=TRAINING) -> None:
    """The private model, its statement and its images stand in the folder."""
    network = {"settings": plain(NetworkSettings())} if network is None else network
    made_by = Provenance("finetune", 2, plain(trained or FinetuneSettings()), parents)
    Weights(
        kind,
        tensors or {"raw.a.weight": torch.ones(2, 3), "ema.a.weight": torch.zeros(2, 3)},
        {**network, "resolution": 8, "channels": 1, "num_labels": 3},
        {"class_names": list(NAMES)},
        made_by,
    ).write(folder / "model.safetensors")
    weights = {"weights": sha256(folder / "model.safetensors")}
    made_by = Provenance("finetune", 2, made_by.settings, parents | weights)
    statement([QUERY, event], made_by.parents, provenance=made_by).write(folder / "privacy.json")
    pixels = np.random.default_rng(0).integers(0, 256, (33, 8, 8, 1), np.uint8)
    drawn = Provenance("sample", 1, {**plain(SampleSettings()), "seed": 0}, weights)
    ImageSet(pixels, np.arange(33) % 3, NAMES, "synthetic", drawn).write(folder / "images.h5")


def make(monkeypatch, folder: Path, **changes) -> Path:
    given = {
        "dataset": "digits",
        "method": "privimage",
        "seed": "0",
        "declared": json.dumps(DECLARED),
        "settings": "{}",
        "images": str(folder / "images.h5"),
        "weights": str(folder / "model.safetensors"),
        "privacy": str(folder / "privacy.json"),
        "subset": str(folder / "subset.json"),
        "query": str(folder / "query.json"),
        "folder": str(folder / "release"),
        **changes,
    }
    monkeypatch.setattr("sys.argv", ["release", *(word for k, v in given.items() for word in (f"--{k}", v))])
    release.main()
    return folder / "release"


@pytest.fixture
def released(quick, monkeypatch, folder) -> Path:
    return make(monkeypatch, folder)


def test_the_files_are_those_of_the_list_and_their_sums_are_right(released):
    files = {path.relative_to(released).as_posix() for path in released.rglob("*") if path.is_file()}
    assert files == {*whitelist.FILES, "data/train-00000-of-00001.parquet"}
    lines = (released / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in lines} == files - {"SHA256SUMS"}
    assert all(sha256(released / name) == digest for digest, name in (line.split("  ") for line in lines))
    assert not released.with_name(release.UNFINISHED).exists()
    assert {oct(p.stat().st_mode & 0o777) for p in released.rglob("*")} == {"0o644", "0o755"}


def test_all_three_formats_hold_the_same_images_and_labels(released, folder, tmp_path):
    prepare_torchvision()
    from torchvision.datasets import ImageFolder

    images = ImageSet.read(folder / "images.h5")
    again = ImageSet.read(released / "images.h5")
    assert (again.images == images.images).all() and (again.labels == images.labels).all()
    table = pq.read_table(released / "data/train-00000-of-00001.parquet")
    assert table.schema.field("label").type == pa.int64()
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
    assert table["label"].to_pylist() == images.labels.tolist()
    decoded = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
    assert (np.array(decoded) == images.images[..., 0]).all()
    with zipfile.ZipFile(released / "images.zip") as archive:
        archive.extractall(tmp_path / "unzipped")
    by_folder = {e["folder"]: e["label"] for e in json.loads((released / "classes.json").read_text())["classes"]}
    read = ImageFolder(str(tmp_path / "unzipped" / "train"))
    assert set(read.classes) == set(by_folder) and len(read) == 33
    for path, number in read.samples:
        index = int(Path(path).stem)
        assert by_folder[read.classes[number]] == images.labels[index]
        assert (np.asarray(Image.open(path)) == images.images[index, ..., 0]).all()


def test_weights_and_statement_say_what_they_said(released, folder):
    weights, before = (Weights.read(at / "model.safetensors", "diffusion") for at in (released, folder))
    assert weights.identity == before.identity
    assert PrivacyStatement.read(released / "privacy.json") == PrivacyStatement.read(folder / "privacy.json")
    drawn_from = ImageSet.read(released / "images.h5").provenance.parents
    assert drawn_from == {"weights": sha256(released / "model.safetensors")}


def test_the_same_artifacts_give_the_same_bytes(quick, monkeypatch, folder):
    first = make(monkeypatch, folder)
    kept = {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()}
    again = make(monkeypatch, folder)
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()} == kept


def test_many_images_fill_several_files(quick, monkeypatch, folder):
    monkeypatch.setattr("privimage.releasing.parquet.SHARD_BYTES", 10 * 64)
    monkeypatch.setattr("privimage.releasing.parquet.GROUP_ROWS", 4)
    made = make(monkeypatch, folder)
    paths = sorted((made / "data").iterdir())
    assert [path.name for path in paths] == [f"train-0000{k}-of-00004.parquet" for k in range(4)]
    files = [pq.ParquetFile(path) for path in paths]
    assert [[f.metadata.row_group(g).num_rows for g in range(f.num_row_groups)] for f in files[:1]] == [[4, 4, 2]]
    assert [label for f in files for label in f.read()["label"].to_pylist()] == [k % 3 for k in range(33)]


# What the card says.


def card(path: Path) -> tuple[dict, str]:
    _, front, body = (path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), " ".join(body.split())


def test_the_card_states_the_guarantee_in_words(monkeypatch, folder):
    front, body = card(make(monkeypatch, folder, settings='{"license": "cc-by-4.0", "pretty_name": "A: title"}'))
    assert front["license"] == "cc-by-4.0" and front["pretty_name"] == "A: title"
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    person = accounting.epsilon([QUERY, TRAINING], 5e-5, images_per_unit=2)
    told = ("one image of the sensitive set", "add or remove one image", "ε = 1.000 at δ = 5e-05", "| 1.900 |",
            f"up to 2 images | {np.ceil(person * 1000) / 1000:.3f}, computed", "**A noisy query**",
            "Discrete Gaussian noise with multiplier 10", "so 14.14 on every count", "2 compositions",
            "**DP-SGD**, 80 steps", "probability 0.28", "multiplier 11", "secret key of the operating system",
            "1,437 sensitive training", "`internal` &lt;b&gt;has no guarantee", "no other release",
            "The odometer", "PLD (dp-accounting)")  # fmt: skip
    assert [words for words in told if words not in body] == []
    assert body.index("**A noisy query**") < body.index("**DP-SGD**")
    assert "<b>" not in body and "NOT PRIVATE" not in body


AUTOENCODER = {"autoencoder": {"settings": plain(AutoencoderSettings()), "channels": 1}}
LATENT = {"network": {"settings": plain(NetworkSettings()), **AUTOENCODER}}
POPULATION = {"images": torch.zeros(3, 8, 8, 1, dtype=torch.uint8), "labels": torch.arange(3)}
KINDS = {  # of weights: what is private training's there, and words of its card
    "a diffusion model": ("diffusion", {}, "from a diffusion model that was trained on the sensitive", "8 noise"),
    "attention": ("diffusion", {"trained": FinetuneSettings(trained="attention")}, "Only the layers of attention"),
    "latents": ("latent-diffusion", LATENT, "from a latent diffusion model", "8 noise levels", "and the autoencoder"),
    "adapters": (
        "latent-diffusion", {**LATENT, "trained": FinetuneSettings(trained="lora")}, "Only low-rank adapters beside"),
    "a generator": (
        "gan", {"network": {"settings": plain(GanNetworkSettings())}, "trained": GanFinetuneSettings(clip_norm=0.7)},
        "whose discriminator was trained on the sensitive images", "the pair's gradient", "L2 norm of 0.7"),
    "a population": (
        "population", {"network": {}, "trained": EvolutionSettings(), "tensors": POPULATION, "event": VOTES},
        "from a diffusion model that learnt from public images alone", "the last generation, from which"),
}  # fmt: skip


@pytest.mark.parametrize("made", KINDS)
def test_a_model_of_every_kind_is_released_and_has_its_own_words(quick, monkeypatch, folder, made):
    assert {kind for kind, *_ in KINDS.values()} == set(DRAWN_BY)
    parents = PrivacyStatement.read(folder / "privacy.json").provenance.parents
    kind, private, *told = KINDS[made]
    write_private(folder, {name: sha for name, sha in parents.items() if name != "weights"}, kind, **private)
    _, body = card(make(monkeypatch, folder))
    assert [words for words in told if words not in body] == []
    assert ("diffusion model" in body) == (kind != "gan") and ("noise level" in body) == ("diffusion" in kind)
    assert ("Only " in body) == (made in ("attention", "adapters"))


def test_a_title_of_several_lines_is_refused(quick, monkeypatch, folder):
    with pytest.raises(UserError, match="several lines"):
        make(monkeypatch, folder, settings=json.dumps({"pretty_name": "a\n---\n# b"}))


def test_the_card_tells_what_the_run_s_releases_cost_together(monkeypatch, folder):
    other = statement([TRAINING], {"pretrained": "1" * 64, "subset": "2" * 64}, target_epsilon=10.0)
    other.write(folder / "other.json")
    cells = [("privimage", 0, "privacy.json"), ("scratch", 3, "other.json")]
    rows = [{"method": method, "seed": seed, "privacy": str(folder / name)} for method, seed, name in cells]
    statements.run(json.dumps(rows)).write(folder / "statements.json")
    _, body = card(make(monkeypatch, folder, statements=str(folder / "statements.json")))
    joint = accounting.epsilon([QUERY, TRAINING, TRAINING], 5e-5)
    assert f"faces ε = {np.ceil(joint * 1000) / 1000:.3f}" in body and "| scratch | 3 | 10 | 1.000 |" in body


def test_a_release_whose_statement_is_not_among_all_is_refused(quick, monkeypatch, folder):
    rows = [{"method": "privimage", "seed": 1, "privacy": str(folder / "privacy.json")}]
    statements.run(json.dumps(rows)).write(folder / "statements.json")
    with pytest.raises(UserError, match=r"statements.json lacks the privacy statement of this release; rerun"):
        make(monkeypatch, folder, statements=str(folder / "statements.json"))
    assert not (folder / "release").exists()


def test_a_noisy_choice_of_epochs_has_words_too(quick, monkeypatch, folder):
    sealed(folder / "privacy.json", lambda body: body["events"].append(noisy_choice(0.02).as_json()))
    _, body = card(make(monkeypatch, folder))
    assert "3. **A noisy choice**" in body and "at ε = 0.02." in body


def test_reproducible_noise_is_stamped(quick, monkeypatch, folder):
    sealed(folder / "privacy.json", lambda body: body.update(private=False))
    _, body = card(make(monkeypatch, folder))
    assert "**NOT PRIVATE.**" in body and "secret key of the operating system" not in body


def test_a_person_with_declared_images_gets_the_stated_epsilon(quick, monkeypatch, folder):
    sealed(folder / "privacy.json", lambda body: body.update(images_per_unit=3, epsilon_per_unit=3.4567))
    declared = json.dumps({**DECLARED, "images_per_unit": 3})
    assert "up to 3 images | 3.457, computed" in card(make(monkeypatch, folder, declared=declared))[1]


@pytest.mark.parametrize("field", [name for name in PrivacyStatement.__dataclass_fields__ if name != "private"])
def test_without_a_field_of_the_statement_there_is_no_release(quick, monkeypatch, folder, field):
    for change in (lambda body: body.pop(field), lambda body: body.update({field: None})):
        shutil.copy(folder / "privacy.json", folder / "whole.json")
        sealed(folder / "privacy.json", change)
        with pytest.raises(UserError):
            make(monkeypatch, folder)
        shutil.copy(folder / "whole.json", folder / "privacy.json")
    assert not (folder / "release").exists()


def test_a_mechanism_without_words_is_refused(quick, monkeypatch, folder):
    sealed(folder / "privacy.json", lambda body: body["events"][1].update(mechanism="sparse_vector"))
    with pytest.raises(UserError, match="no words"):
        make(monkeypatch, folder)


@pytest.mark.parametrize(
    "names, folders",
    [
        (("cat", "dog"), ["cat", "dog"]),
        (("a b", "a_b"), ["0000_a_b", "0001_a_b"]),
        (("Cat", "cat"), ["0000_Cat", "0001_cat"]),
        (("..", "x/../y"), ["0000_", "0001_x_.._y"]),
        (("con", "z"), ["0000_con", "0001_z"]),
        (("猫", "犬"), ["0000__", "0001__"]),
    ],
)
def test_class_names_become_safe_and_distinct_folders(names, folders):
    assert folder_names(names) == folders


# Canaries: the search finds them where they are planted, and finds none in a release.


def test_no_canary_is_in_a_release(released, folder):
    assert search(released, CANARIES) == set()
    found = {name for _, name in search(folder / "internal", CANARIES) | search(folder / "state", CANARIES)}
    assert found == set(CANARIES)  # they were there to be found


def with_zip(path: Path, name: str, content: bytes, **about) -> None:
    with zipfile.ZipFile(path / "images.zip", "a") as archive:
        member = zipfile.ZipInfo(name)
        for key, value in about.items():
            setattr(member, key, value)
        archive.writestr(member, content, zipfile.ZIP_DEFLATED)


def as_png(text: str | None = None, pixels: np.ndarray = SENSITIVE[0]) -> bytes:
    info = PngImagePlugin.PngInfo()
    if text:
        info.add_text("comment", text, zip=True)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def with_parquet(path: Path, metadata: dict[str, str], extra: dict[str, list] | None = None) -> None:
    file = next((path / "data").iterdir())
    table = pq.read_table(file)
    for name, column in (extra or {}).items():
        table = table.append_column(name, [column])
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **metadata}), file, compression="zstd")


def with_hdf5(path: Path, where: str, value) -> None:
    with h5py.File(path / "images.h5", "a") as file:
        if where == "dataset":
            file.create_dataset("extra", data=value, chunks=True, compression="gzip")
        elif where == "metadata":
            file.attrs["metadata"] = json.dumps({**json.loads(file.attrs["metadata"]), "note": value})
        else:
            file[where].attrs["note"] = value
    (path / "images.h5.sha256").write_text(f"{sha256(path / 'images.h5')}  images.h5\n")


def with_weights(path: Path, metadata=None, tensors=None, inner=None) -> None:
    """The weights' file with more in it, under a checksum that is right."""
    weights = Weights.read(path / "model.safetensors", "diffusion")
    changed = Weights(**{**vars(weights), **(inner or {}), "tensors": {**weights.tensors, **(tensors or {})}})
    changed.write(path / "model.safetensors")
    with safe_open(path / "model.safetensors", "pt") as file:
        about, kept = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(kept, path / "model.safetensors", metadata={**about, **(metadata or {})})


def with_card(path: Path, change) -> None:
    (path / "README.md").write_text(change((path / "README.md").read_text()))


LEAKS = {  # what someone puts into a finished release, and the canary that is then found
    "an additional file": (lambda at: (at / "notes.txt").write_text(PATH), "a path"),
    "an additional file among the data": (lambda at: (at / "data/x.bin").write_bytes(CANARIES["a key"]), "a key"),
    "an unknown key of the statement": (
        lambda at: sealed(at / "privacy.json", lambda b: b.update(n=70481)), "a true count"),
    "an unknown key of an event": (
        lambda at: sealed(at / "privacy.json", lambda b: b["events"][0].update(loss=CANARIES["a loss"])), "a loss"),
    "a path among the settings": (
        lambda at: sealed(at / "privacy.json", lambda b: b["provenance"]["settings"].update(path=PATH)), "a path"),
    "a path in a sentence": (lambda at: sealed(at / "privacy.json", lambda b: b["not_covered"].append(PATH)), "a path"),
    "a key of the front matter": (
        lambda at: with_card(at, lambda t: t.replace("license:", f"data: {PATH}\nlicense:")), "a path"),
    "a path in the card": (lambda at: with_card(at, lambda t: f"{t}\n{PATH}\n"), "a path"),
    "a text in the picture": (lambda at: (at / "samples.png").write_bytes(as_png(PATH)), "a path"),
    "bytes behind the picture": (lambda at: (at / "samples.png").write_bytes(as_png() + CANARIES["a key"]), "a key"),
    "a member of the zip": (lambda at: with_zip(at, "train/zebra/notes.txt", PATH.encode()), "a path"),
    "a text in a member's picture": (lambda at: with_zip(at, "train/0000_zebra/99.png", as_png(PATH)), "a path"),
    "a comment of a member": (
        lambda at: with_zip(at, "train/0000_zebra/99.png", as_png(), comment=CANARIES["a key"]), "a key"),
    "metadata of the table": (lambda at: with_parquet(at, {"note": PATH}), "a path"),
    "a column of the table": (lambda at: with_parquet(at, {}, {"loss": [CANARIES["a loss"]] * 33}), "a loss"),
    "an attribute of the file": (lambda at: with_hdf5(at, "/", PATH), "a path"),
    "an attribute of the images": (lambda at: with_hdf5(at, "images", CANARIES["a metric"]), "a metric"),
    "a data set in the file": (lambda at: with_hdf5(at, "dataset", SENSITIVE), "the last image"),
    "a key of the images' metadata": (lambda at: with_hdf5(at, "metadata", 70481), "a true count"),
    "metadata of the weights": (lambda at: with_weights(at, metadata={"note": PATH}), "a path"),
    "a fact of the weights": (
        lambda at: with_weights(at, inner={"facts": {"class_names": [*NAMES], "loss": CANARIES["a loss"]}}), "a loss"),
    "a tensor": (lambda at: with_weights(at, tensors={"data.x": torch.from_numpy(SENSITIVE)}), "an image"),
}  # fmt: skip
PIXELS = {  # an image is an image: no list can tell, the search can
    "a sensitive image in the zip": (lambda at: with_zip(at, "train/0000_zebra/99.png", as_png()), "an image"),
    "a sensitive image as the sample": (lambda at: (at / "samples.png").write_bytes(as_png()), "an image"),
}


@pytest.mark.parametrize("leak", [*LEAKS, *PIXELS])
def test_the_search_finds_what_was_put_into_a_release(released, leak):
    plant, canary = {**LEAKS, **PIXELS}[leak]
    plant(released)
    assert {name for _, name in search(released, CANARIES)} >= {canary}


@pytest.mark.parametrize("leak", LEAKS)
def test_the_list_refuses_what_was_put_into_a_release(released, leak):
    whitelist.check_folder(released)
    LEAKS[leak][0](released)
    with pytest.raises(UserError):
        whitelist.check_folder(released)


INPUTS = [
    name
    for name in LEAKS
    if not any(word in name for word in ("card", "front matter", "zip", "member", "table", "file", "picture"))
] + ["an attribute of the file"]


@pytest.mark.parametrize("leak", INPUTS)
def test_a_leak_in_an_artifact_is_refused_with_a_sentence(quick, monkeypatch, folder, leak):
    LEAKS[leak][0](folder)
    with pytest.raises(UserError, match=r"on the list|no path leaves|not a setting|expected raw and averaged"):
        make(monkeypatch, folder)
    assert not (folder / "release").exists() and not (folder / release.UNFINISHED).exists()


@pytest.mark.parametrize(
    "text, place",
    [
        ("read from /srv/my_data/x", "/srv/my_data/x"),
        ("/secret", "/secret"),
        ("in `/secret`", "/secret"),
        ("(~/scans)", "~/scans"),
        ("from ./home/u", "./home/u"),
        ("path=../u", "../u"),
        ("data/secret.zip", "data/secret.zip"),
        ("of my-data/a b.txt and x/y/scan.png.", "x/y/scan.png"),
        ("file:///x", "file:///x"),
        (r"C:\Users\u", r"C:\Users\u"),
        ("internal/train", "internal/"),
    ],
)
def test_a_place_is_seen_in_a_text(text, place):
    assert place_in(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "yes/no", "n/a", "w/ glasses", "and / or", "24/7", "+/-", "<b>a|b</b>", "frontal/lateral (AP/PA)", "ε/δ",
        "https://creativecommons.org/licenses/by/4.0/", "https://zenodo.org/records/1/a.zip", "images.h5", "x/y/z",
        "`data/*.parquet`", "data/train-*.parquet", "images/train", "path/of/this/folder", "1/num_images", "v1.2/3.4",
    ],
)  # fmt: skip
def test_words_with_slashes_are_no_place(text):
    assert place_in(text) is None


def test_a_place_is_seen_under_the_escapes_of_markdown(released):
    text = (released / "README.md").read_text(encoding="utf-8")
    (released / "README.md").write_text(text.replace("## Contents", "## data\\_x/scans\\_1.zip"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="names a place, 'data_x/scans_1.zip'"):
        whitelist.FILES["README.md"](released / "README.md")


def test_what_lies_beside_the_artifacts_does_not_come_along(quick, monkeypatch, folder):
    (folder / "notes.txt").write_text(PATH)
    (folder / "samples.png").write_bytes(as_png(PATH))
    (folder / "release").mkdir()
    (folder / "release" / "old.txt").write_text(PATH)
    assert search(make(monkeypatch, folder), CANARIES) == set()


def test_a_leak_that_a_writer_makes_leaves_no_release(quick, monkeypatch, folder):
    """Also what no artifact held is caught: the folder is looked at before it gets its name."""
    monkeypatch.setattr(release, "render", lambda facts: f"---\nlicense: x\n---\n{PATH}\n")
    with pytest.raises(ArtifactError, match="README.md names a place"):
        make(monkeypatch, folder)
    assert not (folder / "release").exists() and not (folder / release.UNFINISHED).exists()


@pytest.mark.parametrize("flag", ["images", "weights", "privacy", "subset", "query"])
def test_nothing_is_read_from_an_internal_folder(quick, monkeypatch, folder, flag):
    with pytest.raises(UserError, match="folder named internal"):
        make(monkeypatch, folder, **{flag: str(folder / "internal" / "train.h5")})


def test_sensitive_images_are_not_released_as_if_they_were_synthetic(quick, monkeypatch, folder):
    shutil.copy(folder / "internal" / "train.h5", folder / "images.h5")
    (folder / "images.h5.sha256").write_text(f"{sha256(folder / 'images.h5')}  images.h5\n")
    with pytest.raises(UserError, match="only synthetic images leave"):
        make(monkeypatch, folder)


def test_what_does_not_belong_together_is_refused(quick, monkeypatch, folder):
    sealed(folder / "subset.json", lambda body: body["classes"].update(zebra=["D"]))
    with pytest.raises(UserError, match="another model, subset"):
        make(monkeypatch, folder)


def test_a_statement_of_another_model_is_refused(quick, monkeypatch, folder):
    sealed(folder / "privacy.json", lambda body: body["provenance"]["parents"].update(weights="3" * 64))
    with pytest.raises(UserError, match="another model, subset"):
        make(monkeypatch, folder)


def test_images_of_another_model_are_refused(quick, monkeypatch, folder):
    with_weights(folder, tensors={"raw.a.weight": torch.zeros(2, 3)})
    with pytest.raises(UserError, match="not drawn from the model"):
        make(monkeypatch, folder)


@pytest.mark.parametrize("started_from, fits", [("0", True), ("3", False)])
def test_images_may_have_been_pushed_away_from_the_model_that_training_started_from_alone(
    quick, monkeypatch, folder, started_from, fits
):
    images = ImageSet.read(folder / "images.h5")
    parents = {**images.provenance.parents, "pretrained": started_from * 64}
    replace(images, provenance=replace(images.provenance, parents=parents)).write(folder / "images.h5")
    if fits:
        found = ImageSet.read(make(monkeypatch, folder) / "images.h5").provenance.parents
        card = (folder / "release/README.md").read_text()
        assert f"training started from (SHA-256 `{parents['pretrained']}`)" in card
        assert found == {"weights": sha256(folder / "release/model.safetensors"), "pretrained": parents["pretrained"]}
    else:
        with pytest.raises(UserError, match="another public model than the statement's"):
            make(monkeypatch, folder)


def test_the_lists_are_those_of_the_artifacts():
    """A new field of an artifact must be put on the list by someone who knows that it may leave."""
    assert set(whitelist.STATEMENT) == {*PrivacyStatement.__dataclass_fields__, "sha256"}
    assert set(whitelist.SUBSET) == {*Subset.__dataclass_fields__, "sha256"}
    assert set(whitelist.QUERY) == {*QueryResult.__dataclass_fields__, "sha256"}
    assert set(whitelist.EVENT) == set(Event.__dataclass_fields__)
