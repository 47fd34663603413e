"""Images a second of pretraining and of the classifier, plain, and with each thing that is meant to make them faster.

    .venv/bin/python benchmarks/training.py                       both, float32 and bfloat16, both layouts of memory
    .venv/bin/python benchmarks/training.py --compile             and compiled: minutes of a CPU's compiler

The loops are the stages' own: drawing, forward, backward, optimiser, average. The first steps, in which memory is found
and functions are compiled, are left out; a rate is that of the median step, and the rows take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from dp_step import SIZES

from privimage.artifacts import ImageSet
from privimage.checkpoints import Checkpoint
from privimage.classifiers import training as classifying
from privimage.classifiers.resnet import ResNet
from privimage.compute import Compute
from privimage.diffusion import training as diffusing
from privimage.diffusion.denoiser import new_denoiser
from privimage.settings import ClassifierSettings, ComputeSettings, PretrainSettings

LEFT_OUT = 2
LAYOUTS = {"by channel": torch.contiguous_format, "by pixel": torch.channels_last}


@contextmanager
def timed(module: object) -> Iterator[list[float]]:
    """The starts of the loop's steps, and its end."""
    real, times = module.progress, []

    def progress(steps: range, *how: object) -> Iterator[int]:
        for step in steps:
            _wait()
            times.append(time.perf_counter())
            yield step
        _wait()
        times.append(time.perf_counter())

    module.progress = progress
    try:
        yield times
    finally:
        module.progress = real


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def pretraining(args: argparse.Namespace, images: ImageSet, compute: Compute, layout: torch.memory_format) -> list:
    """Seconds of each step of pretraining."""
    settings = PretrainSettings(network=SIZES[args.network], num_steps=args.steps, batch_size=args.batch_size)
    model = new_denoiser(settings.network, args.resolution, 3, 10, 0).to(compute.device, memory_format=layout)
    with tempfile.TemporaryDirectory() as folder, timed(diffusing) as times:
        index, labels = np.arange(len(images.labels)), torch.from_numpy(images.labels)
        checkpoint = Checkpoint(Path(folder) / "none", "none")
        diffusing.train(model, images.images, index, labels, settings, 0, checkpoint, compute)
    return list(np.diff(times))


def classifier(args: argparse.Namespace, images: ImageSet, compute: Compute, layout: torch.memory_format) -> list:
    """Seconds of each step of the classifier's training."""
    settings = ClassifierSettings(batch_size=args.batch_size)
    network = classifying.initialised(lambda: ResNet(settings, 3, 10), 0).to(memory_format=layout)
    some = ImageSet(images.images[: args.steps * args.batch_size], images.labels[: args.steps * args.batch_size],
                    images.class_names, "noise")  # fmt: skip
    recipe = classifying.Recipe(1, args.batch_size, settings.learning_rate, settings.momentum, settings.weight_decay,
                                settings.horizontal_flip)  # fmt: skip
    with timed(classifying) as times:
        list(classifying.Trainer(network, some, recipe, 0, compute).epochs("classifier"))
    return list(np.diff(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=SIZES, default="small", help="of the diffusion model")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loops", nargs="+", choices=("pretrain", "classifier"), default=("pretrain", "classifier"))
    parser.add_argument("--compile", action="store_true", help="of pretraining, too (a classifier is not compiled)")
    args = parser.parse_args()
    rng, shape = np.random.default_rng(0), (args.steps * args.batch_size, args.resolution, args.resolution, 3)
    images = ImageSet(rng.integers(0, 256, shape, np.uint8), np.arange(shape[0]) % 10, tuple("0123456789"), "noise")
    loops = {"pretrain": pretraining, "classifier": classifier}
    rows = [(loop, precision, layout, False) for loop in args.loops for precision in ("float32", "bfloat16")
            for layout in LAYOUTS]  # fmt: skip
    if args.compile:
        layout = "by pixel" if torch.cuda.is_available() else "by channel"
        rows += [("pretrain", precision, layout, True) for precision in ("float32", "bfloat16")]
    seconds: dict[tuple, list[float]] = {row: [] for row in rows}
    for _ in range(args.rounds):
        for row in rows:
            loop, precision, layout, compiled = row
            compute = Compute(ComputeSettings(precision=precision, compile=compiled))
            seconds[row] += loops[loop](args, images, compute, LAYOUTS[layout])[LEFT_OUT:]
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}; {args.resolution} x {args.resolution}, batches of {args.batch_size}; network {args.network}")
    print("| loop | precision | layout | compiled | images a second | over the first |\n|---|---|---|---|---|---|")
    for row, taken in seconds.items():
        rate = args.batch_size / median(taken)
        plain = args.batch_size / median(seconds[row[0], "float32", "by channel", False])
        print(f"| {row[0]} | {row[1]} | {row[2]} | {'yes' if row[3] else 'no'} | {rate:,.1f} | {rate / plain:.2f} |")


if __name__ == "__main__":
    main()
