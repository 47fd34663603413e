"""What the real loop of DP-SGD lets out, recorded from outside, for the detectors to judge.

Nothing of the package is replaced, but for how often it saves: a hook that torch offers notes each gradient that an
optimizer is handed, so a mistake is seen wherever on the way it was made. Steps of different settings are comparable
since the learning rate is next to nothing, so that weights stay as they are, and since draws depend on the key and the
step alone: two runs that differ in one thing differ by what that thing changes.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from small_model import DECLARED
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from privimage import finetune, private_training
from privimage.artifacts import ImageSet, PrivacyStatement, Provenance, Subset, Weights, sha256
from privimage.checkpoints import flatten
from privimage.compute import Compute
from privimage.diffusion.denoiser import Denoiser, new_denoiser
from privimage.diffusion.ema import averaged
from privimage.measurements import Curve
from privimage.privacy.damping import Damping
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger, Release
from privimage.privacy.randomness import SecretKey
from privimage.schema import plain as plain_json
from privimage.settings import ComputeSettings, FinetuneSettings, NetworkSettings

CLIP = 1e-3  # every image's gradient is far above it, so every image is clipped
STILL = 1e-30  # a learning rate that moves no weight
SILENT = 1e-9  # a noise multiplier that hides nothing
NETWORK = NetworkSettings(base_channels=4, channel_multipliers=(1,), num_res_blocks=1, attention_resolutions=(16,))
WHITE, BLACK = 255, 0


class Killed(BaseException):
    """The process ended here."""


class Small(nn.Module):
    """A denoiser with a layer of every kind and 85 weights."""

    settings, num_labels, channels, resolution = NETWORK, 2, 1, 4

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.label, self.embed = nn.Embedding(3, 4), nn.Linear(4, 4)
            self.conv_in, self.norm, self.conv_out = (
                nn.Conv2d(1, 4, 3, padding=1),
                nn.GroupNorm(2, 4),
                nn.Conv2d(4, 1, 1),
            )

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        e = self.embed(self.label(labels))[:, :, None, None]
        return self.conv_out(torch.tanh(self.norm(self.conv_in(x)) + e)) - x


class Cliff(torch.autograd.Function):
    """Leaves numbers [B, 1] as they are, and makes the gradient of those of the second class infinite."""

    @staticmethod
    def forward(ctx, numbers: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(labels)
        return numbers.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (labels,) = ctx.saved_tensors
        return torch.where(labels[:, None] == 1, torch.inf, gradient), None


class Cusp(Small):
    """The same, but of images of the second class one number of the gradient is infinite, and all others are not."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.steep = nn.Embedding(3, 1)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return super().forward(x, sigma, labels) + Cliff.apply(self.steep(labels), labels)[:, :, None, None]


class Table(nn.Module):
    """A denoiser that guesses one grey value a label: an image moves the entry of its label and no other."""

    settings, channels, resolution = NETWORK, 1, 2

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.num_labels, self.table = num_labels, nn.Embedding(num_labels + 1, 1)
        nn.init.zeros_(self.table.weight)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return self.table(labels)[:, :, None, None].expand_as(x)


def unet(seed: int) -> Denoiser:
    """The real network at its smallest, no weight at zero."""
    made = new_denoiser(NETWORK, 4, 1, 2, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return made


def pictures(num: int, seed: int, side: int = 4) -> ImageSet:
    """Images of noise with two labels in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (num, side, side, 1), np.uint8)
    return ImageSet(pixels, np.arange(num) % 2, ("x", "y"), "test")


def plain(greys: list[int], labels: list[int], num_labels: int) -> ImageSet:
    """Images of one grey each, for a ``Table``."""
    pixels = np.array(greys, np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)
    return ImageSet(pixels, np.array(labels, np.int64), tuple(map(str, range(num_labels))), "test")


def first(images: ImageSet, num: int) -> ImageSet:
    """The first so many of the images."""
    return ImageSet(images.images[:num], images.labels[:num], images.class_names, "test")


@contextmanager
def recorded(kill_at: int | None = None) -> Iterator[list[Tensor]]:
    """The gradients that optimizers are handed within the block, each flat; at the one named, the process ends."""
    seen: list[Tensor] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        seen.append(
            torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in weights]).double()
        )
        if len(seen) - 1 == kill_at:
            raise Killed

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Every global generator starts at a seed, as the experiment's seed might set it."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def mechanism(
    key: SecretKey,
    noise: float,
    *,
    microbatch: int = 2,
    declared: int = 10,
    compute: dict | None = None,
    damping: Damping | None = None,
    **changes,
) -> private_training.Mechanism:
    """DP-SGD of four steps over all images, two copies each, unless changed."""
    usual = dict(sampling_probability=1.0, num_steps=4, noise_levels_per_image=2, clip_norm=CLIP, label_dropout=0.0)
    settings = FinetuneSettings(**{**usual, "learning_rate": STILL, **changes})
    how = Compute(ComputeSettings(microbatch_size=microbatch, **{"precision": "float32", **(compute or {})}))
    return private_training.Mechanism(settings, noise, declared, key, how, damping=damping)


def sums(
    model: nn.Module,
    images: ImageSet,
    key: SecretKey,
    noise: float = SILENT,
    *,
    release: Release | None = None,
    kill_at: int | None = None,
    **changes,
) -> Tensor:
    """What each step of the loop let out, times the declared batch size, in units of the bound C: [T, weights]."""
    how = mechanism(key, noise, **changes)
    with recorded(kill_at) as seen, suppress(Killed):
        private_training.run(model, images, how, release)
    scale = how.settings.sampling_probability * how.num_images / how.settings.clip_norm
    return scale * torch.stack(seen) if seen else torch.zeros(0, sum(p.numel() for p in model.parameters()))


class Reads(np.ndarray):
    """An array that tells when it is read."""

    def __getitem__(self, index):
        self.tell()
        return np.asarray(self)[index]


class Watched:
    """The real loop's runs, each made when it is first asked for; all random choices come from ``seed``."""

    IMAGES, PROBABILITY, STEPS = 200, 0.3, 64  # of the sampler's runs

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        rng = np.random.default_rng(seed)
        self.key, self.other_key = (SecretKey(rng.bytes(32)) for _ in range(2))

    @cached_property
    def small(self) -> Small:
        return Small(self.seed)

    @cached_property
    def shapes(self) -> list[torch.Size]:
        return [p.shape for p in self.small.parameters()]

    # --- noise alone: steps into which no image was drawn -------------------------------------------------------------

    def _noise(self, key: SecretKey, seed: int, steps: int) -> Tensor:
        with global_seed(seed):
            return (
                sums(Small(self.seed), pictures(3, self.seed), key, 2.0, num_steps=steps, sampling_probability=1e-9)
                / 2.0
            )

    @cached_property
    def noise(self) -> Tensor:
        return self._noise(self.key, 1, 48)

    @cached_property
    def noise_again(self) -> Tensor:
        """The same key, other global seeds."""
        return self._noise(self.key, 2, 8)

    @cached_property
    def noise_of_other_key(self) -> Tensor:
        """Another key, the same global seeds."""
        return self._noise(self.other_key, 1, 48)

    @cached_property
    def much_noise(self) -> Tensor:
        """One step of a model with many weights."""
        table = Table(400_000)
        images = plain([WHITE], [0], 400_000)
        return sums(table, images, self.key, num_steps=1, noise=2.0, sampling_probability=1e-9)[0] / 2.0

    @cached_property
    def noise_beside_images(self) -> Tensor:
        """The noise of steps with images, in two microbatches: those steps less the same without noise."""
        loud, silent = (sums(self.small, pictures(3, self.seed), self.key, noise) for noise in (2.0, SILENT))
        return (loud - silent) / 2.0

    # --- images alone: steps without noise ----------------------------------------------------------------------------

    def _shares(self, key: SecretKey, seed: int, steps: int) -> Tensor:
        images = plain([WHITE] * self.IMAGES, list(range(self.IMAGES)), self.IMAGES)
        with global_seed(seed):
            found = sums(
                Table(self.IMAGES), images, key, microbatch=64, num_steps=steps, noise_levels_per_image=1,
                sampling_probability=self.PROBABILITY, declared=250,
            )  # fmt: skip
        return -found[:, :-1]  # without the label 'none'

    @cached_property
    def shares(self) -> Tensor:
        """What each image added to each step [T, N]: every one has an entry of its own."""
        return self._shares(self.key, 1, self.STEPS)

    @cached_property
    def shares_again(self) -> Tensor:
        return self._shares(self.key, 2, 6)

    @cached_property
    def shares_of_other_key(self) -> Tensor:
        return self._shares(self.other_key, 1, 16)

    def moved(self, model: nn.Module, images: ImageSet, last: int = 1, **changes) -> Tensor:
        """By how much the ``last`` images move each step's sum [T, weights]."""
        few, many = (sums(model, of, self.key, **changes) for of in (first(images, len(images.labels) - last), images))
        if few.shape != many.shape:
            return torch.full((1, 1), torch.nan)
        return many - few

    @cached_property
    def trial(self) -> tuple[Tensor, Tensor]:
        """The audit's observations of an entry with and without its image: noise multiplier 1/2, so mu is 2."""
        images = plain([WHITE] * 128, list(range(128)), 256)
        found = -sums(Table(256), images, self.key, 0.5, microbatch=64, num_steps=16, noise_levels_per_image=1)
        return found[:, :128].flatten(), found[:, 128:256].flatten()

    # --- what leaves, and what is written down ------------------------------------------------------------------------

    @cached_property
    def left_and_replayed(self) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """The state of model and average as the loop returned them, and as the gradients alone make them."""
        how = mechanism(self.key, 1.0, learning_rate=1e-2, num_steps=5, ema_decay=0.9)
        with recorded() as seen:
            model, ema, _ = private_training.run(unet(self.seed), pictures(2, self.seed), how)
        again = unet(self.seed)
        ema_again = averaged(again, 0.9)
        optimizer = torch.optim.Adam(again.parameters(), lr=1e-2)
        for gradient in seen:
            parts = gradient.float().split([p.numel() for p in again.parameters()])
            for p, part in zip(again.parameters(), parts):
                p.grad = part.view_as(p).clone()
            optimizer.step()
            ema_again.update_parameters(again)
        pairs = ((model, again), (ema, ema_again.module)) if len(seen) == 5 else ((model, unet(self.seed)),)
        return [(a.state_dict(), b.state_dict()) for a, b in pairs]

    def starts(self, lose_key: bool) -> tuple[list[Tensor], list[bool]]:
        """The steps of both starts of a release of six, the first killed in its fourth; and of each read of an image
        in the first, whether its step was reserved. With noise so loud that images are lost in it."""
        folder, images = Path(tempfile.mkdtemp(dir=self.folder)), pictures(2, self.seed)
        ran, reserved = [], []
        for kill_at in (3, None):
            with Ledger(folder, "set", DECLARED).open("finetune", "f" * 32, "test") as release, recorded() as taken:
                release.reserve([Event("poisson_gaussian", 50.0, 1.0, 6)], continuing=release.reserved_steps > 0)

                class Watch(Reads):
                    @staticmethod
                    def tell(first=kill_at is not None, taken=taken, release=release):
                        reserved.extend([release.reserved_steps > len(taken)] * first)

                watched = ImageSet(images.images.view(Watch), images.labels, images.class_names, "test")
                with patch.object(private_training, "SAVE_SECONDS", 0.0):
                    how = dict(release=release, kill_at=kill_at, num_steps=6)
                    ran.append(sums(self.small, watched, release.key, 50.0, **how) / 50)
                path = release.folder / "key"
            if lose_key and kill_at is not None:
                path.unlink()
        return ran, reserved

    @cached_property
    def resumed(self) -> tuple[list[Tensor], list[bool]]:
        return self.starts(lose_key=False)

    @cached_property
    def resumed_without_key(self) -> tuple[list[Tensor], list[bool]]:
        return self.starts(lose_key=True)

    @cached_property
    def stage(self) -> list[Stage]:
        """What the stage did and stated, twice: the same seed, settings and images, another state folder."""
        return [run_stage(Path(tempfile.mkdtemp(dir=self.folder)), self.seed) for _ in range(2)]


@dataclass(frozen=True)
class Stage:
    """One run of ``finetune``: its statement, its odometer, its steps, and how many images each had."""

    events: list[Event]
    charged: list[dict]
    gradients: Tensor  # [T, weights]
    counts: list[int]
    shapes: list[torch.Size]
    same: bool  # the released tensors are those handed over: the steps move no weight


STAGE_IMAGES = 100
STAGE = FinetuneSettings(sampling_probability=0.3, num_steps=5, noise_levels_per_image=1, learning_rate=STILL)


def run_stage(folder: Path, seed: int) -> Stage:
    """The stage's own command line on a hundred images, at an epsilon that asks for much noise."""
    model, images = unet(seed), pictures(STAGE_IMAGES, seed)
    images.write(folder / "internal" / "train.h5")
    Subset("none", {"x": [], "y": []}, Provenance("select", 1)).write(folder / "subset.json")
    tensors = {**flatten("raw", model.state_dict()), **flatten("ema", model.state_dict())}
    made = Provenance("pretrain", 1, parents={"subset": sha256(folder / "subset.json")})
    Weights("diffusion", tensors, model.describe(), {"class_names": ["x", "y"]}, made).write(folder / "pretrained")
    declared = {"num_images": STAGE_IMAGES, "class_names": ["x", "y"], "delta": 1e-3}
    flags = {
        "dataset": "set", "method": "scratch", "epsilon": 0.3, "seed": 0, "releases": "finetune",
        "images": folder / "internal" / "train.h5", "pretrained": folder / "pretrained",
        "subset": folder / "subset.json", "declared": json.dumps(declared), "settings": json.dumps(plain_json(STAGE)),
        "compute": json.dumps({"precision": "float32", "microbatch_size": 64}), "state-dir": folder / "state",
        "weights": folder / "weights", "privacy": folder / "privacy.json", "curve": folder / "internal" / "curve.csv",
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    with patch.object(sys, "argv", ["finetune", *words]), recorded() as seen:
        finetune.main()
    released = Weights.read(folder / "weights", "diffusion").tensors
    return Stage(
        PrivacyStatement.read(folder / "privacy.json").events,
        [event for record in Ledger(folder / "state", "set", DECLARED).odometer() for event in record["events"]],
        torch.stack(seen),
        [int(row[2]) for row in Curve.read(folder / "internal" / "curve.csv").rows],
        [p.shape for p in model.parameters()],
        released.keys() == tensors.keys() and all(torch.allclose(released[n], tensors[n]) for n in tensors),
    )
