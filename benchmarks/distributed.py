"""What a second process is worth on a CPU: images a second of pretraining, of the classifier and of DP-SGD's steps.

    .venv/bin/python benchmarks/distributed.py [--loops pretrain classifier finetune] [--network small]

Rows are one process with one thread, one with two, and two processes with a thread each, which talk by gloo. Each row
is started anew in every round, and the rows take turns; numbers are those of the leader's median step, the first ones
left out. Processor time, of all processes, moves less than the clock where other programs run beside.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from dp_step import SIZES
from training import LEFT_OUT

from privimage import private_training
from privimage.artifacts import ImageSet
from privimage.checkpoints import Checkpoint
from privimage.classifiers import training as classifying
from privimage.classifiers.resnet import ResNet
from privimage.compute import Compute
from privimage.diffusion import training as diffusing
from privimage.diffusion.denoiser import new_denoiser
from privimage.distributed import Group, joined
from privimage.privacy.randomness import SecretKey
from privimage.settings import ClassifierSettings, ComputeSettings, FinetuneSettings, PretrainSettings

ROWS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 2)}
LEVELS = 4  # noise levels of an image in DP-SGD: its copies are what takes the time


def pretrain(args: argparse.Namespace, images: ImageSet, compute: Compute, group: Group) -> None:
    """Some steps of pretraining."""
    settings = PretrainSettings(network=SIZES[args.network], num_steps=args.steps, batch_size=args.batch_size)
    model = compute.place(new_denoiser(settings.network, args.resolution, 3, 10, 0))
    index, labels = np.arange(len(images.labels)), torch.from_numpy(images.labels)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder) / "none", "none") if group.leads else None
        diffusing.train(model, images.images, index, labels, settings, 0, checkpoint, compute, group)


def classifier(args: argparse.Namespace, images: ImageSet, compute: Compute, group: Group) -> None:
    """Some steps of the classifier's training, whose batch normalisation talks as well."""
    settings = ClassifierSettings()
    network = classifying.initialised(lambda: ResNet(settings, 3, 10), 0)
    recipe = classifying.Recipe(1, args.batch_size, 0.01, 0.9, 5e-4, horizontal_flip=True)
    list(classifying.Trainer(network, images, recipe, 0, compute, group).epochs("classifier"))


def finetune(args: argparse.Namespace, images: ImageSet, compute: Compute, group: Group) -> None:
    """Some steps of DP-SGD, with all images in each: as many copies as the other loops have images."""
    num = max(1, args.batch_size // LEVELS)
    few = ImageSet(images.images[:num], images.labels[:num], images.class_names, "noise")
    settings = FinetuneSettings(sampling_probability=1.0, num_steps=args.steps, noise_levels_per_image=LEVELS)
    model = new_denoiser(SIZES[args.network], args.resolution, 3, 10, 0)
    if group.leads:
        mechanism = private_training.Mechanism(settings, 1.0, num, SecretKey.from_seed(0), compute)
        private_training.run(model, few, mechanism, group=group)
    else:
        private_training.assist(model, few, settings, compute, group)


LOOPS: dict[str, tuple[Callable, object]] = {
    "pretrain": (pretrain, diffusing),
    "classifier": (classifier, classifying),
    "finetune": (finetune, private_training),
}


@contextmanager
def timed(module: object) -> Iterator[list[tuple[float, float]]]:
    """The starts of the loop's steps, and its end: by the clock, and in processor time of this process."""
    real, times = module.progress, []

    def progress(steps: range, *how: object) -> Iterator[int]:
        for step in steps:
            times.append((time.perf_counter(), time.process_time()))
            yield step
        times.append((time.perf_counter(), time.process_time()))

    module.progress = progress
    try:
        yield times
    finally:
        module.progress = real


def measure(args: argparse.Namespace) -> None:
    """Print the seconds of this process's steps, if it leads."""
    rng, num = np.random.default_rng(0), args.steps * args.batch_size
    pixels = rng.integers(0, 256, (num, args.resolution, args.resolution, 3), np.uint8)
    images = ImageSet(pixels, np.arange(num) % 10, tuple("0123456789"), "noise")
    loop, module = LOOPS[args.measure]
    with joined() as group, timed(module) as times:
        loop(args, images, Compute(ComputeSettings(precision=args.precision)), group)
    if group.leads:
        print(json.dumps(np.diff(times, axis=0).tolist()))


def started(loop: str, processes: int, threads: int) -> list[tuple[float, float]]:
    """Seconds of the leader's steps in fresh processes that share the threads, and of all their processors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--measure", loop], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         env={**os.environ, **address, **size, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{loop} failed in {processes} processes")
    return [(wall, own * processes) for wall, own in json.loads(outputs[0])[LEFT_OUT:]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--network", choices=SIZES, default="small", help="of the diffusion model")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--measure", choices=LOOPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    print(f"{args.resolution} x {args.resolution}, batches of {args.batch_size}; {args.precision}; {args.network}")
    print("| loop | processes | images a second | over one thread | processor time, over one thread |")
    print("|---|---|---|---|---|")
    for loop in args.loops:
        seconds: dict[str, list[tuple[float, float]]] = {row: [] for row in ROWS}
        for _ in range(args.rounds):
            for row, how in ROWS.items():
                seconds[row] += started(loop, *how)
        middle = {row: [median(each) for each in zip(*taken, strict=True)] for row, taken in seconds.items()}
        one = middle["1 process, 1 thread"]
        for row, (wall, processor) in middle.items():
            rates = f"{args.batch_size / wall:,.1f} | {one[0] / wall:.2f} | {processor / one[1]:.2f}"
            print(f"| {loop} | {row} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
