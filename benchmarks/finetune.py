"""How long a whole DP fine-tuning takes: a few steps of it, and what follows for all.

    .venv/bin/python benchmarks/finetune.py                                  CIFAR-10 as published: a GPU's work
    .venv/bin/python benchmarks/finetune.py --num-images 60 --network toy    a CPU's

The images are noise, which costs the same; everything else is the stage itself: Poisson sampling, drawing the noise of
the diffusion, clipping, privacy noise, optimiser, average. The first step, which also compiles, is told apart.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from dp_step import SIZES

from privimage import private_training
from privimage.artifacts import ImageSet
from privimage.compute import Compute
from privimage.diffusion.denoiser import new_denoiser
from privimage.privacy.randomness import SecretKey
from privimage.settings import ComputeSettings, FinetuneSettings


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=SIZES, default="small")
    parser.add_argument("--num-images", type=int, default=50_000)
    parser.add_argument("--sampling-probability", type=float, default=1 / 3)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=150, help="of the whole fine-tuning")
    parser.add_argument("--measured", type=int, default=3, help="steps to take, beside the first")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--microbatch-size", type=int)
    args = parser.parse_args()
    compute = Compute(
        ComputeSettings(precision=args.precision, compile=args.compile, microbatch_size=args.microbatch_size)
    )
    settings = FinetuneSettings(
        sampling_probability=args.sampling_probability,
        num_steps=args.measured + 1,
        noise_levels_per_image=args.copies,
    )
    model = new_denoiser(SIZES[args.network], 32, 3, 10, 0)
    rng, names = np.random.default_rng(0), tuple("0123456789")
    pixels = rng.integers(0, 256, (args.num_images, 32, 32, 3), np.uint8)
    images = ImageSet(pixels, np.arange(args.num_images) % 10, names, "noise")
    ends = [time.perf_counter()]
    real = private_training._step

    def step(*how: object) -> tuple[float, float, float]:
        row = real(*how)  # ends with the device at rest: the loss is read
        ends.append(time.perf_counter())
        if len(ends) == 2:
            print(f"first step {ends[1] - ends[0]:.1f} s, microbatches of {how[5]}", flush=True)
        return row

    private_training._step = step
    _, _, curve = private_training.run(
        model, images, private_training.Mechanism(settings, 1.0, args.num_images, SecretKey.from_seed(0), compute)
    )
    seconds = (ends[-1] - ends[1]) / args.measured
    drawn = float(np.mean([row[2] for row in curve.rows[1:]]))
    where = torch.cuda.get_device_name() if compute.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{where}; {compute.precision}; compile {args.compile}; {parameters:,} parameters; K = {args.copies}")
    print(f"{seconds:.2f} s a step of {drawn:.0f} images: {drawn / seconds:,.0f} images a second, "
          f"{args.copies * drawn / seconds:,.0f} gradient evaluations a second")  # fmt: skip
    print(f"all {args.num_steps} steps: {args.num_steps * seconds / 60:.1f} minutes")
    if compute.device.type == "cuda":
        print(f"GPU memory at most {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
