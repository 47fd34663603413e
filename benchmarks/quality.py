"""How fast images are compared: the Frechet distance against scipy's matrix root, features against the bare network.

    .venv/bin/python benchmarks/quality.py [--width 2048] [--images 300] [--rounds 3] [--threads 1]

The distance: two covariances of full rank; scipy's time is that of `sqrtm` alone. The features: a network of the cost
of Inception (torchvision's Inception v3 without weights, as TorchScript) behind each way of preparing images: as a
user's network of 299 pixels, and by the resizing of clean-fid; the bare network gets tensors that are ready. Rounds
alternate; ratios are of medians within one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.linalg import sqrtm

from privimage.artifacts import ImageSet
from privimage.metrics.extraction import extract
from privimage.metrics.feature_networks import FeatureNetwork, load_network
from privimage.metrics.frechet import frechet_distance, moments_of
from privimage.metrics.torchvision_cpu import prepare_torchvision
from privimage.networks import Network

SIZE = 299  # pixels


def seconds(function: Callable[[], object]) -> tuple[float, object]:
    """The time that a call takes, and what it gives."""
    began = time.perf_counter()
    value = function()
    return time.perf_counter() - began, value


def distance(width: int, rounds: int) -> None:
    """Print the time of the Frechet distance over that of scipy's root, and how far apart their values are."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(width, width)) / width**0.5
    a, b = (moments_of(rng.normal(size=(2 * width, width)) @ mix * scale + shift) for scale, shift in ((1, 0), (2, 1)))
    ours, theirs = [], []
    for _ in range(rounds):
        taken, value = seconds(lambda: frechet_distance(a, b))
        ours.append(taken)
        taken, root = seconds(lambda: sqrtm(a.covariance @ b.covariance))
        theirs.append(taken)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance) - 2 * np.trace(root).real
    ratio = median(ours) / median(theirs)
    print(f"Frechet distance, {width} features: {median(ours):.2f} s, scipy's root {median(theirs):.2f} s", end=", ")
    print(f"ratio {ratio:.3f} (required: at most 0.25), relative difference {abs(value / expected - 1):.1e}")


def stand_in(folder: Path) -> FeatureNetwork:
    """A network of Inception's cost from a TorchScript file, as a user would name it."""
    prepare_torchvision()
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, init_weights=False, transform_input=False, aux_logits=False).eval()
    network.fc = torch.nn.Identity()
    path = folder / "network.pt"
    torch.jit.trace(network, torch.zeros(1, 3, SIZE, SIZE)).save(str(path))
    return load_network("stand-in", Network(path=str(path), input_size=SIZE), path)


def clean(network: FeatureNetwork) -> FeatureNetwork:
    """The same network behind the resizing of clean-fid."""
    from concurrent.futures import ThreadPoolExecutor

    from cleanfid.resize import build_resizer

    resize, threads = build_resizer("clean"), ThreadPoolExecutor(torch.get_num_threads())

    def prepare(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack(list(threads.map(resize, images)))).permute(0, 3, 1, 2).float()

    return FeatureNetwork("clean", "", "clean", network.batch_size, prepare, network.forward)


def features(count: int, rounds: int) -> None:
    """Print the rate of features over that of the bare network, for both ways of preparing images of 32 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images = ImageSet(pixels, np.zeros(count, np.int64), ("all",), "drawn")
    with TemporaryDirectory() as folder:
        own = stand_in(Path(folder))
    ready = [own.prepare(pixels[i : i + own.batch_size]) for i in range(0, count, own.batch_size)]

    def bare() -> None:
        with torch.inference_mode():
            for x in ready:
                own.forward(x)

    ways = {"bare network": bare}
    for name, network in (("bilinear to 299 pixels", own), ("clean-fid's resizing", clean(own))):
        ways[name] = lambda network=network: extract(network, images, None, network.name)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    bare()  # TorchScript optimises itself in its first calls
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(seconds(way)[0])
    for name, times in taken.items():
        ratio = median(taken["bare network"]) / median(times)
        print(f"features, {name}: {count / median(times):.1f} images a second, {ratio:.3f} of the bare network's rate")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048, help="features of the Frechet distance")
    parser.add_argument("--images", type=int, default=300, help="images to extract features of")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the network; also set OMP_NUM_THREADS")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    distance(args.width, args.rounds)
    features(args.images, args.rounds)


if __name__ == "__main__":
    main()
