"""How fast images are read: against a bare Pillow loop, on one core and on two; and what a worker needs of memory.

    .venv/bin/python benchmarks/preprocess.py [--photographs 1500] [--small 10000] [--rounds 5]

The images are crops of the two photographs that scikit-learn ships, written as JPEG files: of 500 x 375 pixels, as most
of ImageNet's are, and of 64 x 64. Both loops read every file, crop the centre square, resize it to 32 x 32 and keep it;
ours also checks, converts, hashes, names and writes. The rounds alternate; ratios are of medians within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

IMAGENET = 1_281_167  # training images
SIZES = {"photographs": (500, 375), "small": (64, 64)}


def make(folder: Path, size: tuple[int, int], count: int) -> None:
    """``count`` JPEG files of real texture in 20 folders."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        width = int(rng.integers(200, 500))
        height = width * size[1] // size[0]
        left, top = rng.integers(0, photograph.width - width), rng.integers(0, photograph.height - min(height, 420))
        crop = photograph.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
        path = folder / f"class{index % 20:02}" / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        crop.save(path, quality=90)


def bare(folder: Path) -> None:
    """What anyone would write."""
    files = sorted(folder.rglob("*.jpg"))
    began = time.perf_counter()
    out = np.empty((len(files), 32, 32, 3), np.uint8)
    for index, path in enumerate(files):
        with Image.open(path) as image:
            image = image.convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            out[index] = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    report(began, len(files))


def ours(folder: Path, index: int, of: int, shard: Path) -> None:
    """One shard, as the workflow reads it."""
    from privimage import shard as stage
    from privimage.settings import Source

    source = Source(source="folder", path=str(folder), resolution=32, channels=3, num_classes=20)
    began = time.perf_counter()
    count = stage.run(source, None, index, of, shard)
    report(began, count)


def join(shards: list[Path], folder: Path) -> None:
    """The sets of all shards."""
    from privimage import preprocess
    from privimage.artifacts import Provenance
    from privimage.settings import JoinSettings
    from privimage.shards import Shard

    began = time.perf_counter()
    read = [Shard.read(path) for path in shards]
    joined = preprocess.run(read, JoinSettings(), None, Provenance("preprocess", 0))
    joined.train.write_stretches(folder / "train.h5", joined.stretches(False))
    joined.test.write_stretches(folder / "test.h5", joined.stretches(True))
    report(began, len(joined.train.labels) + len(joined.test.labels))


def report(began: float, count: int) -> None:
    """One line of JSON for the process that measures."""
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "count": count, "mb": memory}))


def start(*args: object) -> subprocess.Popen[str]:
    """A worker on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def result(worker: subprocess.Popen[str]) -> dict[str, float]:
    """What a worker reported."""
    out, _ = worker.communicate()
    if worker.returncode:
        raise SystemExit(f"a worker failed with exit code {worker.returncode}")
    return json.loads(out.splitlines()[-1])


def measure(images: Path, scratch: Path, rounds: int) -> dict[str, float]:
    """Medians over the rounds: images a second and megabytes."""
    seen: dict[str, list[float]] = {name: [] for name in ("bare", "one", "two", "join", "mb", "join mb")}
    for _ in range(rounds):
        one = result(start("bare", images))
        seen["bare"].append(one["count"] / one["seconds"])
        one = result(start("ours", images, 0, 1, scratch / "a.h5"))
        seen["one"].append(one["count"] / one["seconds"])
        pair = [start("ours", images, index, 2, scratch / f"{index}.h5") for index in range(2)]
        both = [result(worker) for worker in pair]
        seen["two"].append(sum(b["count"] for b in both) / max(b["seconds"] for b in both))
        joined = result(start("join", scratch, scratch / "0.h5", scratch / "1.h5"))
        seen["join"].append(joined["count"] / joined["seconds"])
        seen["mb"].append(max(one["mb"], *(b["mb"] for b in both)))
        seen["join mb"].append(joined["mb"])
    return {name: median(values) for name, values in seen.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=1500, help="images of 500 x 375")
    parser.add_argument("--small", type=int, default=10_000, help="images of 64 x 64")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{'images':12} {'bare/s':>8} {'ours/s':>8} {'ratio':>6} {'2 cores/s':>10} {'gain':>6} {'join/s':>9} "
          f"{'worker MB':>10} {'join MB':>8}")  # fmt: skip
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            images, scratch = Path(folder, "images"), Path(folder, "scratch")
            scratch.mkdir()
            make(images, size, getattr(args, name))
            m = measure(images, scratch, args.rounds)
        print(f"{name:12} {m['bare']:8.0f} {m['one']:8.0f} {m['one'] / m['bare']:6.2f} {m['two']:10.0f} "
              f"{m['two'] / m['one']:6.2f} {m['join']:9.0f} {m['mb']:10.0f} {m['join mb']:8.0f}")  # fmt: skip
        if name == "photographs":
            cores = [(1, m["one"]), (2, m["two"]), (32, 16 * m["two"])]
            hours = {n: (IMAGENET / rate + IMAGENET / m["join"]) / 3600 for n, rate in cores}
    print(
        "ImageNet's 1.28 million photographs, projected: "
        + ", ".join(f"{h:.2f} h on {n} cores" for n, h in hours.items())
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        bare(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["ours"]:
        ours(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    elif sys.argv[1:2] == ["join"]:
        join([Path(text) for text in sys.argv[3:]], Path(sys.argv[2]))
    else:
        main()
