"""Drawing, and looking at real images, shared out over jobs and over processes: the same bytes as in one piece."""

import json
import os
import sys
from functools import partial

import pytest
from gloo import together
from small import noise_set, write_classifier
from small_model import SMALL

from privimage import cli, features, sample, stopping
from privimage.artifacts import ArtifactError, Provenance, Weights
from privimage.checkpoints import flatten
from privimage.diffusion.denoiser import new_denoiser
from privimage.errors import UserError
from privimage.metrics import feature_networks
from privimage.shares import Share

DRAW = {"num_images": 26, "num_steps": 3, "batch_size": 4}  # seven batches, the last one smaller
EYES = json.dumps({"network": {"kind": "classifier"}})


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model, real images, a classifier for them."""
    folder = tmp_path_factory.mktemp("given")
    model = new_denoiser(SMALL, 8, 1, 3, seed=1)
    tensors = {**flatten("raw", model.state_dict()), **flatten("ema", model.state_dict())}
    facts = {"class_names": ["x", "y", "z"]}
    Weights("diffusion", tensors, model.describe(), facts, Provenance("finetune", 1)).write(folder / "model")
    write_classifier(folder / "classifier")
    noise_set(30, 0).write(folder / "internal/train.h5")
    noise_set(19, 1).write(folder / "internal/test.h5")
    return folder


def run(stage, *words):
    """The stage as its command would run it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [stage.__name__, *map(str, words)])
        stage.main()


def draw(given, folder, *more, settings=DRAW, images="images.h5"):
    words = ["--weights", given / "model", "--seed", 0, "--settings", json.dumps(settings), "--checkpoints"]
    run(sample, *words, folder / "state", *more, "--images", folder / images)


def look(given, folder, *more, name=""):
    words = ["--network", "classifier", "--weights", given / "classifier", "--settings", EYES, "--checkpoints"]
    for split in features.SPLITS:
        more = (*more, f"--{split}", given / f"internal/{split}.h5")
        more = (*more, f"--{split}-features", folder / f"internal/{name}{split}.h5")
    run(features, *words, folder / "state", *more)


def left(folder):
    """All files but those of checkpoints and of what was printed."""
    names = (path for path in folder.rglob("*") if path.is_file() and path.suffix in (".h5", ".sha256", ".png"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in names}


@pytest.fixture(autouse=True)
def batches_of_four(monkeypatch):
    """The classifier looks at four images at once, so that there are batches to share."""
    monkeypatch.setattr(feature_networks, "BATCH_SIZE", 4)


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """What one process makes in one piece."""
    folder = tmp_path_factory.mktemp("whole")
    before, feature_networks.BATCH_SIZE = feature_networks.BATCH_SIZE, 4
    draw(given, folder, "--grid", folder / "grid.png")
    look(given, folder)
    feature_networks.BATCH_SIZE = before
    return left(folder)


@pytest.mark.parametrize("of", [1, 2, 3, 7, 9])
def test_shares_are_whole_batches_that_follow_each_other_and_make_up_the_whole(of):
    rows = [row for index in range(of) for row in Share(index, of).rows(26, 4)]
    assert rows == list(range(26))
    assert all(Share(index, of).rows(26, 4).start % 4 == 0 for index in range(of))
    assert {len(Share(index, of).batches(7)) for index in range(of)} <= {7 // of, -(-7 // of)}


@pytest.mark.parametrize("of", [2, 9])  # nine: some have nothing to do
def test_what_several_jobs_drew_is_joined_to_the_same_bytes(given, whole, tmp_path, of):
    shards = [tmp_path / f"{index}.h5" for index in range(of)]
    for index in range(of):
        draw(given, tmp_path, "--index", index, "--of", of, images=f"{index}.h5")
    made = tmp_path / "made"
    draw(given, made, "--shards", *shards, "--grid", made / "grid.png")
    assert left(made) == {name: content for name, content in whole.items() if "internal" not in name}
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize("of", [2, 9])
def test_what_several_jobs_saw_of_real_images_is_joined_to_the_same_bytes_and_open_to_nobody(
    given, whole, tmp_path, of
):
    for index in range(of):
        look(given, tmp_path, "--index", index, "--of", of, name=f"{index}-")
    shards = {split: [tmp_path / f"internal/{index}-{split}.h5" for index in range(of)] for split in features.SPLITS}
    look(given, made := tmp_path / "made", "--train-shards", *shards["train"], "--test-shards", *shards["test"])
    assert left(made) == {name: content for name, content in whole.items() if "internal" in name}
    assert {path.stat().st_mode & 0o777 for paths in shards.values() for path in paths} == {0o600}
    assert not list((tmp_path / "state").iterdir())


def test_a_share_of_something_else_and_a_damaged_one_are_refused(given, tmp_path):
    for index in range(2):
        draw(given, tmp_path, "--index", index, "--of", 2, images=f"{index}.h5")
        look(given, tmp_path, "--index", index, "--of", 2, name=f"{index}-")
    first, second = (tmp_path / f"{index}.h5" for index in range(2))
    for others in ([second, first], [first], [first, first]):
        with pytest.raises(UserError, match="is not share 0 of|is not share 1 of"):
            draw(given, tmp_path / "made", "--shards", *others)
    with pytest.raises(UserError, match="is not share 0 of 2"):
        draw(given, tmp_path / "made", "--shards", first, second, settings={**DRAW, "num_steps": 4})
    train, test = ([tmp_path / f"internal/{i}-{split}.h5" for i in range(2)] for split in features.SPLITS)
    with pytest.raises(UserError, match="is not share 0 of 2"):
        look(given, tmp_path / "made", "--train-shards", *test, "--test-shards", *train)
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="damaged"):
        draw(given, tmp_path / "made", "--shards", first, second)
    assert left(tmp_path / "made") == {}


def test_a_share_that_is_none_is_refused(given, tmp_path, capsys):
    with pytest.raises(SystemExit):
        draw(given, tmp_path, "--index", 2, "--of", 2)
    assert "--index is 2; expected 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_draw_and_see_the_same_bytes(given, whole, tmp_path, size):
    drawing = partial(draw, given, tmp_path, "--grid", tmp_path / "grid.png")
    assert together(size, drawing, tmp_path / "draw") == [0] * size
    assert together(size, partial(look, given, tmp_path), tmp_path / "look") == [0] * size
    assert left(tmp_path) == whole
    assert "sample: 7/7" in (tmp_path / "draw/rank0").read_text()
    assert {(tmp_path / f"{step}/rank{rank}").read_text() for step in ("draw", "look") for rank in range(1, size)} == {
        ""
    }


def interrupted(given, folder, size, at):
    """Exit codes of processes that drew, of which the last one died at its ``at``-th batch."""
    real = sample.generator_for

    def dying(seed, batch):
        if batch % size == size - 1 and batch // size == at:
            os._exit(9)
        return real(seed, batch)

    sample.generator_for = dying
    codes = together(size, lambda: cli.run(partial(draw, given, folder)), folder / "told", timeout=20)
    sample.generator_for = real
    return codes


@pytest.mark.parametrize("later", [1, 3])
def test_a_process_that_dies_stops_the_others_and_the_next_start_goes_on_with_another_number(
    given, whole, tmp_path, monkeypatch, later
):
    assert interrupted(given, tmp_path, 2, 2) == [stopping.EXIT_CODE, 9]
    assert list((tmp_path / "state").rglob("checkpoint-*")) and not (tmp_path / "images.h5").exists()
    drawn, real = tmp_path / "drawn", sample.generator_for

    def noted(seed, batch):
        with open(drawn, "a") as file:
            file.write(f"{batch} ")
        return real(seed, batch)

    monkeypatch.setattr(sample, "generator_for", noted)
    assert together(later, partial(draw, given, tmp_path), tmp_path / "again") == [0] * later
    assert (tmp_path / "images.h5").read_bytes() == whole["images.h5"]
    assert set(map(int, drawn.read_text().split())) == {5, 6}  # the first five were kept
