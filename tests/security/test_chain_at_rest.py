"""What a finished run leaves behind besides its releases: logs, times, Snakemake's notes, the state directory."""

import json
import re
import stat

import pytest
from canaries import search

from privimage.artifacts import ImageSet, sha256
from privimage.measurements import Curve

METHODS = ("privimage", "pdp")


@pytest.fixture(scope="module")
def canaries(chain):
    """What names or is a sensitive image, in forms that a search finds."""
    internal = chain / "results/digits/internal"
    train = ImageSet.read(internal / "train.h5")
    records = [json.loads(line) for line in (chain / "state/digits/odometer.jsonl").read_text().splitlines()]
    losses = [Curve.read(internal / f"{method}/seed0/eps1/training.csv").rows[1][1] for method in METHODS]
    return {
        **{f"image {index}": image.tobytes() for index, image in enumerate(train.images[:50])},
        "the file's hash": sha256(internal / "train.h5"),
        "the set's hash": train.identity,
        "the counts": json.dumps(train.counts),
        **{f"fingerprint of {record['label']}": record["fingerprint"] for record in records},
        **{f"key of {record['label']}": record["key"] for record in records},
        **{f"a loss of {method}": f"{loss:.6g}" for method, loss in zip(METHODS, losses)},
    }


def test_snakemakes_notes_hold_hashes_of_internal_files_but_no_image_count_loss_or_key(chain, canaries):
    """Snakemake notes the SHA-256 of small inputs: one would confirm a set exactly, so the notes are nobody else's."""
    notes = chain / ".snakemake"
    assert len(list((notes / "metadata").iterdir())) > 30 and any((notes / "log").iterdir())
    assert {name for _, name in search(notes, canaries)} <= {"the file's hash"}
    found = {name for _, name in search(chain / "results/digits/internal", canaries)}
    assert {"image 0", "the file's hash", "the counts", "a loss of pdp"} <= found  # the search can find


def test_snakemakes_notes_the_state_and_internal_are_closed_to_others(chain):
    for folder in (chain / ".snakemake", chain / "state", chain / "results/digits/internal"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_only_logs_and_times_of_what_is_public_stand_outside_internal(chain):
    kept = {
        path for path in (chain / "results").rglob("*") if {"logs", "benchmarks"} & {*path.parts} and path.is_file()
    }
    outside = {path.relative_to(chain / "results").as_posix() for path in kept if "internal" not in path.parts}
    assert outside and {path.split("/")[0] for path in outside} == {"public"}


def test_the_state_directory_holds_no_image_no_count_and_nothing_without_noise(chain, canaries):
    """Its curves hold losses, its notes a hash that confirms the set: it is not for others. But no image is in it."""
    found = {name for _, name in search(chain / "state", canaries)}
    assert not {name for name in found if name.startswith("image")} | {"the counts"} & found
    files = {path.name for path in (chain / "state").rglob("*") if path.is_file()}
    drawn = {"query.json", "weights", "curve"}
    assert files == {"odometer.jsonl", "release.lock", "begun.json", "charged.json", "finished.json", *drawn}


def test_no_release_holds_a_log_a_time_or_a_loss(chain, canaries):
    for method in METHODS:
        folder = chain / f"results/digits/{method}/seed0/eps1"
        assert search(folder, canaries) == set()
        assert not [path for path in folder.rglob("*") if re.search(r"log|bench|internal|\.tsv$", path.name)]
