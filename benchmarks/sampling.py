"""How few evaluations of the network a sampler needs: Frechet distance, speed and memory at equal evaluations.

    .venv/bin/python benchmarks/sampling.py [--weights W --classifier C --images I [--subset S]] [--num-images 1000]

Every row starts from the same noise, seed by seed. `distance` is that to the reference images in the features of the
public classifier, mean over the seeds; `exact` is the root mean square difference, in grey levels, from the images
that the probability flow itself makes of that noise (Heun, with many evaluations), so that it tells the solver's error
from the model's. The reference of a finetuned model is its sensitive training set; that of a pretrained model is what
it was pretrained on: the public images whose classes --subset names. By default, the demo's pretrained model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from privimage import sample
from privimage.artifacts import ImageSet, Subset, Weights
from privimage.checkpoints import Checkpoint
from privimage.compute import DEFAULT
from privimage.device import default_device
from privimage.diffusion.denoiser import Denoiser, denoiser_from
from privimage.diffusion.drawing import drawer_of
from privimage.metrics.feature_networks import FeatureNetwork, classifier_network
from privimage.metrics.frechet import Moments, frechet_distance, moments_of
from privimage.settings import SampleSettings

FEW = (5, 7, 9, 13, 19, 25, 35, 51)  # odd: what Heun's steps can take
EVALUATIONS = {"ddim": (*FEW, 99, 249), "heun": FEW, "dpmpp2m": FEW}  # published experiments take 50 and 250 of DDIM
EXACT = 199  # evaluations of Heun that stand for the flow itself
PUBLIC, METHOD = Path("results/public/glyphs8"), Path("results/digits/privimage/seed0")


def grid_steps(sampler: str, evaluations: int) -> int:
    """Steps that cost so many evaluations; Heun's cost two each, but for the last."""
    return (evaluations + 1) // 2 if sampler == "heun" else evaluations


def reference(images: ImageSet, subset: Subset | None) -> np.ndarray:
    """The images of the public classes that the subset names; all without one."""
    if subset is None:
        return images.images
    chosen = {name for names in subset.classes.values() for name in names}
    keep = [name in chosen for name in images.class_names]
    return images.images[np.array(keep)[images.labels]]


def moments(images: np.ndarray, network: FeatureNetwork) -> Moments:
    """Mean and covariance of the images' features."""
    with torch.inference_mode():
        parts = [network.forward(network.prepare(images[i : i + 500]))[0] for i in range(0, len(images), 500)]
    return moments_of(torch.cat(parts).cpu().numpy())


def draw(model: Denoiser, class_names: list[str], settings: SampleSettings, seed: int) -> np.ndarray:
    """Synthetic images, as the stage draws them."""
    with tempfile.TemporaryDirectory() as folder:
        _, stretches = sample.run(
            drawer_of(model, settings, DEFAULT), class_names, settings, seed, Checkpoint(Path(folder), "benchmark")
        )
        return np.concatenate([pixels for _, pixels in stretches])


def forget_peak() -> None:
    """The peak of memory counts from here."""
    if default_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Most memory held since ``forget_peak``: on the device, or of the process."""
    if default_device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=METHOD / "pretrained.safetensors", help="a trained model")
    parser.add_argument("--classifier", type=Path, default=PUBLIC / "classifier.safetensors", help="feature network")
    parser.add_argument("--images", type=Path, default=PUBLIC / "train.h5", help="reference images")
    parser.add_argument("--subset", type=Path, help="which of them, by class, for a pretrained model")
    parser.add_argument("--num-images", type=int, default=1000, help="images a seed")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if args.subset is None and args.weights == parser.get_default("weights"):
        args.subset = METHOD / "subset.json"

    torch.set_num_threads(1)
    network = classifier_network("classifier", args.classifier)
    weights = Weights.read(args.weights, "diffusion")
    model, names = denoiser_from(weights, "ema"), weights.facts["class_names"]
    real = reference(ImageSet.read(args.images), args.subset and Subset.read(args.subset))
    target = moments(real, network)
    base = SampleSettings(num_images=args.num_images, batch_size=500)
    flow = replace(base, sampler="heun", num_steps=grid_steps("heun", EXACT))
    exact = [draw(model, names, flow, seed) for seed in range(args.seeds)]
    seen = [moments(images, network) for images in exact]
    distances = [frechet_distance(one, target) for one in seen]
    print(f"{args.weights}: {args.seeds} x {args.num_images} images against {len(real)}")
    print(
        f"the flow itself: distance {mean(distances):.3f}, standard deviation over seeds {stdev(distances):.3f}; "
        f"between two seeds {mean(frechet_distance(a, b) for a, b in zip(seen, seen[1:])):.3f}; "
        f"between halves of the reference {halves(real, network):.3f}"
    )
    print(f"{'sampler':8} {'evaluations':>11} {'steps':>6} {'distance':>9} {'+-':>6} {'exact':>7} {'images/s':>9} "
          f"{'MB':>6}")  # fmt: skip
    for sampler, row in EVALUATIONS.items():
        for evaluations in row:
            settings = replace(base, sampler=sampler, num_steps=grid_steps(sampler, evaluations))
            forget_peak()
            began = time.perf_counter()
            made = [draw(model, names, settings, seed) for seed in range(args.seeds)]
            rate = args.seeds * args.num_images / (time.perf_counter() - began)
            mb = peak_mb()
            off = mean(rms(a, b) for a, b in zip(made, exact))
            distances = [frechet_distance(moments(images, network), target) for images in made]
            print(f"{sampler:8} {evaluations:11} {settings.num_steps:6} {mean(distances):9.3f} {stdev(distances):6.3f} "
                  f"{off:7.2f} {rate:9.0f} {mb:6.0f}", flush=True)  # fmt: skip


def halves(images: np.ndarray, network: FeatureNetwork) -> float:
    """The distance between two random halves of the images."""
    order = np.random.default_rng(0).permutation(len(images))
    return frechet_distance(*(moments(images[np.sort(part)], network) for part in np.array_split(order, 2)))


def rms(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square difference of two sets of images, in grey levels."""
    return float(np.sqrt(np.square(a.astype(np.float32) - b).mean()))


if __name__ == "__main__":
    main()
