"""What DP-SGD costs: a step of ours and of Opacus' hooks over the same step without privacy.

    .venv/bin/python benchmarks/dp_step.py [--networks small medium large] [--copies 1 4 8 32] [--threads 1]

A step here is what grows with the images: forward and backward pass, clipping, and adding up. (Noise and the optimiser
come once for thousands of images; `--once` prints what they cost.) Without privacy it is an ordinary backward pass of
the same copies of the same images. Engines alternate; times are medians over the rounds, and ratios are medians of the
rounds' ratios. Memory is measured in a process of its own for each engine: its peak above that of the model alone.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from privimage.compute import Compute
from privimage.diffusion.denoiser import Denoiser, new_denoiser
from privimage.diffusion.ema import averaged
from privimage.diffusion.keyed_noise import keyed_noise
from privimage.diffusion.loss import NoisyBatch, per_image_loss
from privimage.privacy.dpsgd import clipped_gradient_sum, noisy_mean
from privimage.privacy.randomness import SecretKey
from privimage.settings import ComputeSettings, NetworkSettings

OF_DIGITS = NetworkSettings(base_channels=32, channel_multipliers=(1, 1), num_res_blocks=1, attention_resolutions=(4,))
SIZES = {  # parameters: 1.75, 3.95, 27.9, 0.31, 0.08 and 0.19 million; 0.05 million is for trying this program
    "small": NetworkSettings(),
    "medium": NetworkSettings(channel_multipliers=(1, 2, 4)),
    "large": NetworkSettings(base_channels=128),
    "digits": OF_DIGITS,  # config/config.yaml, at --resolution 8
    "digits-half": replace(OF_DIGITS, base_channels=16),  # config/study.yaml, config/proxy.yaml
    "mnist": NetworkSettings(  # config/mnist-cpu.yaml, at --resolution 14
        base_channels=16, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(7,)
    ),
    "toy": NetworkSettings(base_channels=8, channel_multipliers=(1, 2), num_res_blocks=1),
}
ENGINES = ("none", "fast", "opacus")


def batch_of(num: int, copies: int, resolution: int, device: torch.device) -> NoisyBatch:
    """Images of noise: the time does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(num, 3, resolution, resolution, generator=generator) * 2 - 1).to(device)
    labels = torch.arange(num, device=device) % 10
    how = dict(levels=copies, P_mean=-1.2, P_std=1.2, label_dropout=0.1, no_label=10, key=1)
    return keyed_noise(images, labels, torch.arange(num, device=device), **how)


def step_of(engine: str, model: Denoiser, batch: NoisyBatch, compute: Compute) -> Callable[[], object]:
    """One step over the batch by the engine."""
    losses = compute.compiled(per_image_loss)

    def of(part: slice) -> torch.Tensor:
        with compute.autocast():
            return losses(model, NoisyBatch(*(tensor[part] for tensor in batch)))

    def ordinary() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        of(slice(None)).mean().backward()

    def private() -> None:
        num, copies = batch.sigma.shape
        workers = compute.workers if engine == "fast" else 1
        how = dict(copies=copies, clip_norm=1e-3, engine=engine, workers=workers)
        clipped_gradient_sum(model, of, num, microbatch_size=math.ceil(num / workers), **how)

    return ordinary if engine == "none" else private


def timed(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of processor time and of the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall


def kilobytes(field: str) -> int:
    """A figure of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(text for text in lines if text.startswith(field)).split()[1])


def peak(engine: str, args: argparse.Namespace, network: str, copies: int, num: int) -> float:
    """Megabytes that a step adds to what the process needed before it."""
    if torch.cuda.is_available():
        step, device = prepared(engine, args, network, copies, num)
        step()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        timed(step, device)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    flags = ["--peak", engine, "--networks", network, "--copies", str(copies), "--images", str(num)]
    flags += ["--precision", args.precision, "--resolution", str(args.resolution), "--threads", str(args.threads)]
    ran = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def prepared(
    engine: str, args: argparse.Namespace, network: str, copies: int, num: int
) -> tuple[Callable[[], object], torch.device]:
    """The engine's step for one line of the table."""
    compute = Compute(ComputeSettings(precision=args.precision, compile=args.compile and engine != "opacus"))
    model = compute.place(new_denoiser(SIZES[network], args.resolution, 3, 10, 0))
    return step_of(engine, model, batch_of(num, copies, args.resolution, compute.device), compute), compute.device


def line(args: argparse.Namespace, network: str, copies: int) -> None:
    """Measure and print one line of the table."""
    num = args.images or max(1, args.rows // copies)
    steps = {engine: prepared(engine, args, network, copies, num) for engine in args.engines}
    seen: dict[str, list[tuple[float, float]]] = {engine: [] for engine in args.engines}
    for _ in range(args.rounds + 1):  # the first is for warming up
        for engine, (step, device) in steps.items():
            seen[engine].append(timed(step, device))
    del steps
    times = {engine: values[1:] for engine, values in seen.items()}
    memory = {engine: peak(engine, args, network, copies, num) for engine in args.engines}
    for engine in args.engines:
        cpu, wall = (median(t[i] for t in times[engine]) for i in (0, 1))
        over = [median(t[i] / n[i] for t, n in zip(times[engine], times["none"])) for i in (0, 1)]
        print(
            f"{network:7} {copies:3} {num:5} {engine:7} {cpu:8.3f} {over[0]:6.2f} {wall:8.3f} {over[1]:6.2f} "
            f"{num / wall:10.1f} {memory[engine]:8.0f} {memory[engine] - memory['none']:+8.0f}",
            flush=True,
        )


def once(network: str, resolution: int) -> None:
    """What comes once a step, however many images there are."""
    model = Compute().place(new_denoiser(SIZES[network], resolution, 3, 10, 0))
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    how = dict(noise_multiplier=1.0, clip_norm=1.0, expected_batch_size=1.0, key=SecretKey.from_seed(0), step=0)
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    average = averaged(model, 0.999)
    for name, part in (
        ("noise", lambda: noisy_mean(total, **how)),
        ("optimiser", optimizer.step),
        ("average", lambda: average.update_parameters(model)),
    ):
        part()
        wall = median(timed(part, Compute().device)[1] for _ in range(3))
        print(f"{network:7} {name:10} {wall:8.3f} s once a step", flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=SIZES, default=["small", "medium", "large"])
    parser.add_argument("--copies", nargs="+", type=int, default=[1, 4, 8, 32])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--rows", type=int, default=32, help="copies of images at once, in all")
    parser.add_argument("--images", type=int, help="images at once, in place of --rows")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="for `none` and `fast`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", action="store_true", help="what comes once a step instead")
    parser.add_argument("--peak", choices=ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        step, _ = prepared(args.peak, args, args.networks[0], args.copies[0], args.images)
        before = kilobytes("VmRSS")
        step()
        print((kilobytes("VmHWM") - before) * 1024 / 1e6)
        return
    if args.once:
        for network in args.networks:
            once(network, args.resolution)
        return
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {args.threads} thread(s)"
    print(f"{where}; {args.precision}; compile {args.compile}; {args.resolution} pixels; torch {torch.__version__}")
    print(f"{'network':7} {'K':>3} {'B':>5} {'engine':7} {'CPU s':>8} {'ratio':>6} {'wall s':>8} {'ratio':>6} "
          f"{'images/s':>10} {'MB':>8} {'more':>8}")  # fmt: skip
    for network in args.networks:
        for copies in args.copies:
            line(args, network, copies)


if __name__ == "__main__":
    main()
