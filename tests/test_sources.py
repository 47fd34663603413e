"""The workflow before training: what is fetched, read in shards and joined, and what happens to bad images."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import good
from checkout import copy_project, dry_run, snakemake

from privimage.artifacts import Contents, ImageSet

TRAIN = "results/mine/internal/train.h5"
ROW = """
run: {{datasets: [mine]}}
datasets:
  mine:
    path: {path}
    public: glyphs8
    num_images: 20
    delta: 1.0e-3
    budget: 10
    select: {{classes_per_label: 1}}
    preprocess: {{num_shards: {num_shards}}}
    pretrain: {{network: {{channel_multipliers: [1, 1], attention_resolutions: [4]}}}}
"""


def configured(project: Path, path: Path, num_shards: int) -> tuple[str, ...]:
    """Arguments that make the images of a folder."""
    name = f"mine{num_shards}.yaml"
    (project / name).write_text(ROW.format(path=path, num_shards=num_shards))
    return ("--configfile", name, "--", TRAIN)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return copy_project(tmp_path_factory.mktemp("sources"))


@pytest.mark.slow
def test_every_shard_is_a_job_of_its_own_and_a_change_of_their_number_reads_anew(project, tmp_path):
    good(tmp_path / "in")
    for num_shards in (1, 3):
        jobs = dry_run(project, *configured(project, tmp_path / "in", num_shards))
        names = sorted(Path(job.output[0]).name for job in jobs if job.rule == "shard_sensitive")
        assert names == [f"{index}-of-{num_shards}.shard" for index in range(num_shards)]
        assert [job.rule for job in jobs if job.rule != "shard_sensitive"] == ["preprocess_sensitive"]


def test_bad_images_stop_the_workflow_and_once_mended_it_goes_on(project, tmp_path):
    root = good(tmp_path / "in", count=100)
    args = ("--cores", "2", *configured(project, root, 2))
    whole = (root / "dog" / "03.png").read_bytes()
    (root / "cat" / "bad.png").write_bytes(b"no image")
    (root / "dog" / "03.png").write_bytes(whole[:-30])
    failed = snakemake(project, *args)
    assert failed.returncode != 0 and "Traceback" not in failed.stdout
    assert "error: 2 problems with the images" in failed.stdout
    assert "cat/bad.png: not an image" in failed.stdout and "dog/03.png: cannot be decoded" in failed.stdout
    internal = project / "results/mine/internal"
    assert not [path for path in internal.rglob("*") if path.suffix in (".h5", ".shard", ".png", ".json")]

    (root / "cat" / "bad.png").unlink()
    (root / "dog" / "03.png").write_bytes(whole)
    done = snakemake(project, *args)
    assert done.returncode == 0, done.stdout
    assert sum(ImageSet.read(project / TRAIN).counts) > 120
    assert Contents.read(internal / "contents.json").problems == []
    assert not list(internal.rglob("*.shard"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in internal.rglob("*"))


@pytest.mark.slow
def test_a_published_set_whose_files_are_in_place_is_taken_without_the_network(project, tmp_path, monkeypatch):
    folder = project / "data/mnist"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    for part in ("train", "t10k"):
        images = struct.pack(">IIII", 2051, 40, 8, 8) + pixels.tobytes()
        labels = struct.pack(">II", 2049, 40) + bytes(n % 10 for n in range(40))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    names = ", ".join(f'"{n}"' for n in range(10))
    text = ROW.format(path="null", num_shards=1).replace("path: null", f"source: mnist\n    class_names: [{names}]")
    (project / "mnist.yaml").write_text(text)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # whatever asks for the network is refused
    done = snakemake(project, "--cores", "2", "--configfile", "mnist.yaml", "--", TRAIN)
    assert done.returncode == 0, done.stdout
    np.testing.assert_array_equal(ImageSet.read(project / TRAIN).images[..., 0], pixels)
    assert (folder / "complete.json").is_file()
