"""Draw labelled synthetic images from the private model.

Reads: the fine-tuned model.
Writes: synthetic images with uniform labels, as they are drawn, and a picture of some of them.
Privacy: post-processing of the private model; labels are uniform, never from true counts.
Source: Karras et al. 2022, algorithm 1; Lu et al. 2022, algorithm 2; Li et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from privimage import cli, stopping
from privimage.artifacts import SYNTHETIC, ImageSet, Provenance, Weights, sha256, write_bytes
from privimage.checkpoints import Checkpoint, Every, fingerprint
from privimage.compute import DEFAULT, Compute
from privimage.diffusion.denoiser import Denoiser, denoiser_from
from privimage.diffusion.sampler import SAMPLERS, guided, noise_levels
from privimage.diffusion.training import generator_for
from privimage.progress import progress
from privimage.reporting.grid import image_grid
from privimage.schema import plain
from privimage.settings import ComputeSettings, SampleSettings

VERSION = 1
SAVE_SECONDS, SAVE_BYTES = 60.0, 2**24  # after so much, images are kept
Stretch = tuple[int, np.ndarray]  # first index, images uint8 [n, H, W, C]


def to_bytes(x: torch.Tensor) -> np.ndarray:
    """Floats [N, C, H, W] in [-1, 1] as rounded bytes [N, H, W, C]."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def run(
    model: Denoiser,
    class_names: list[str],
    settings: SampleSettings,
    seed: int,
    checkpoint: Checkpoint,
    compute: Compute = DEFAULT,
) -> tuple[ImageSet, Iterator[Stretch]]:
    """The synthetic set without its pixels, and those as ``ImageSet.write_stretches`` takes them, drawn as they go.

    Labels are 0, 1, 2, … in turn: as many of each class as the number allows.
    """
    labels = np.arange(settings.num_images) % len(class_names)
    shape = (settings.num_images, model.resolution, model.resolution, model.channels)
    empty = np.broadcast_to(np.uint8(0), shape)  # a shape that takes no memory
    pixels = kept_and_drawn(checkpoint, lambda first: drawn(model, labels, settings, seed, compute, first))
    return ImageSet(empty, labels, tuple(class_names), SYNTHETIC), pixels


def kept_and_drawn(checkpoint: Checkpoint, draw: Callable[[int], Iterator[Stretch]]) -> Iterator[Stretch]:
    """What the checkpoint kept of images drawn before, then those that ``draw`` draws from there on, kept in turn."""
    part, first, fresh, every = 0, 0, [], Every(SAVE_SECONDS)
    while saved := checkpoint.load(part):
        pixels = saved[0]["images"].numpy()
        yield first, pixels
        part, first = part + 1, first + len(pixels)
    with stopping.deferred():
        for stretch in draw(first):
            yield stretch
            fresh.append(torch.from_numpy(stretch[1]))
            if every.due() or sum(images.nbytes for images in fresh) >= SAVE_BYTES:
                checkpoint.save({"images": torch.cat(fresh)}, {}, part)
                part, fresh = part + 1, []
                stopping.check()


def drawn(
    model: Denoiser, labels: np.ndarray, settings: SampleSettings, seed: int, compute: Compute, first: int = 0
) -> Iterator[Stretch]:
    """Images of the labels [N] from ``first`` on, which begins a batch: (first index, uint8 [n, H, W, C]) of each."""
    device, model = compute.device, compute.place(model).eval().requires_grad_(False)
    denoise = guided(compute.compiled(model), settings.guidance_scale, model.num_labels)
    levels = noise_levels(settings.num_steps, settings.sigma_min, settings.sigma_max, settings.rho)
    starts = range(0, len(labels), settings.batch_size)
    begun = first // settings.batch_size
    batches = range(begun, len(starts))
    for batch in progress(batches, "sample", len(starts), begun, settings.batch_size):
        start = starts[batch]
        rows = torch.from_numpy(labels[start : start + settings.batch_size]).to(device)
        shape = (len(rows), model.channels, model.resolution, model.resolution)
        noise = torch.randn(shape, generator=generator_for(seed, batch)).to(device)
        with compute.autocast():
            x = SAMPLERS[settings.sampler](denoise, noise, rows, levels)  # [n, C, H, W]
        yield start, to_bytes(x)


def main() -> None:
    """Run the stage from the command line."""
    parser = cli.parser("sample", __doc__, SampleSettings)
    parser.add_argument("--weights", required=True, type=Path, help="the fine-tuned model")
    parser.add_argument("--seed", required=True, type=int, help="seed of the noise that images start from")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder of checkpoints")
    parser.add_argument("--images", required=True, type=Path, help="output: synthetic images")
    parser.add_argument("--grid", required=True, type=Path, help="output: a picture of some of them")
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision and compilation")
    args = parser.parse_args()
    compute = Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    weights = Weights.read(args.weights, "diffusion")
    settings = cli.settings_from(SampleSettings, args.settings)
    provenance = Provenance(
        "sample", VERSION, {**plain(settings), "seed": args.seed}, {"weights": sha256(args.weights)}
    )
    name = fingerprint({"version": VERSION, "settings": provenance.settings, **provenance.parents})
    checkpoint = Checkpoint(args.checkpoints / name, name)
    model, names = denoiser_from(weights, "ema"), weights.facts["class_names"]
    made, pixels = run(model, names, settings, args.seed, checkpoint, compute)
    replace(made, provenance=provenance).write_stretches(args.images, pixels)
    made = ImageSet.read(args.images)  # memory-mapped: the picture needs few of them
    write_bytes(args.grid, image_grid(made.images, made.labels, made.class_names))
    checkpoint.remove()


if __name__ == "__main__":
    cli.run(main)
