"""Ordinary training of generator and discriminator, for public images; draws are keyed by seed and step.

Source: Lim & Ye 2017 (hinge loss); Brock et al. 2019.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from privimage import stopping
from privimage.checkpoints import Checkpoint, Every
from privimage.compute import Compute
from privimage.diffusion.ema import averaged
from privimage.diffusion.images import Images
from privimage.diffusion.training import generator_for, restore_training, training_tensors
from privimage.errors import UserError
from privimage.gan.networks import Discriminator, Generator
from privimage.gan.pair import Pair, settle
from privimage.gan.settings import GanFinetuneSettings, GanPretrainSettings
from privimage.progress import progress

SAVE_SECONDS = 60.0
BETAS = (0.5, 0.999)


def adam(pair: Pair, settings: GanPretrainSettings | GanFinetuneSettings, *, fused: bool) -> torch.optim.Adam:
    """One optimiser of both networks: a step of it moves the one that has gradients, as if each had its own."""
    groups = [
        {"params": list(pair.discriminator.parameters()), "lr": settings.discriminator_learning_rate},
        {"params": list(pair.generator.parameters()), "lr": settings.generator_learning_rate},
    ]
    return torch.optim.Adam(groups, betas=BETAS, fused=fused)


def latent(generator: Generator, num: int, random: torch.Generator) -> Tensor:
    """Latent vectors [N, latent_size]."""
    return torch.randn(num, generator.latent_size, generator=random, device=random.device)


def discriminator_loss(discriminator: Discriminator, real: Tensor, made: Tensor, labels: Tensor) -> Tensor:
    """The hinge loss [B] of each pair of a real and a made image [B, C, H, W] of one label [B].

    The two of a pair stand next to each other in the discriminator's batch, pairs in order.
    """
    # Laid out anew: on CPUs the library's group norm ends the process on images laid out as they are read (2.13).
    rows = torch.stack([real, made], dim=1).flatten(0, 1).contiguous()  # [2B, C, H, W]
    scores = discriminator(rows, labels.repeat_interleave(2)).float().unflatten(0, (-1, 2))  # [B, 2]
    return F.relu(1 - scores[:, 0]) + F.relu(1 + scores[:, 1])


def generator_gradient(pair: Pair, z: Tensor, labels: Tensor, compute: Compute) -> tuple[Tensor, ...]:
    """The gradient of the generator's hinge loss, by its parameters: made images are to be scored high."""
    with compute.autocast():
        loss = -pair.discriminator(pair.generator(z, labels), labels).float().mean()
    return torch.autograd.grad(loss, list(pair.generator.parameters()))


def train(
    pair: Pair,
    images: np.ndarray,
    index: np.ndarray,
    labels: Tensor,
    settings: GanPretrainSettings,
    seed: int,
    checkpoint: Checkpoint | None,
    compute: Compute,
) -> Generator:
    """``pair`` is trained in place; returned is the moving average of its generator, both settled for drawing.

    Shapes: ``images`` uint8 [M, H, W, C], memory-mapped, of which those at ``index`` [N] are used; ``labels`` int64
    [N].

    Raises:
        UserError: if the weights are no longer finite.
    """
    ema = averaged(pair.generator, settings.ema_decay)
    optimizer = adam(pair, settings, fused=compute.device.type == "cuda")
    start, saved = 0, checkpoint.load() if checkpoint else None
    if saved:
        restore_training(saved[0], pair, ema, optimizer)
        start = saved[1]["step"]
    numbered = np.zeros(len(images), np.int64)
    numbered[index] = labels.numpy()
    data, index = Images(images, numbered, compute.device), torch.from_numpy(index).to(compute.device)
    steps, every = range(start, settings.num_steps), Every(SAVE_SECONDS)
    pair.train()
    with stopping.deferred():
        for step in progress(steps, "pretrain", settings.num_steps, start, settings.batch_size):
            random = generator_for(seed, step, device=compute.device)
            _discriminator_step(pair, optimizer, data, index, settings, random, compute)
            if (step + 1) % settings.discriminator_steps == 0:
                _generator_step(pair, optimizer, data.labels[index], settings, random, compute)
                ema.update_parameters(pair.generator)
            if every.due():
                _check_finite(pair, step)
                if checkpoint:
                    checkpoint.save(training_tensors(pair, ema, optimizer), {"step": step + 1})
                stopping.check()
    _check_finite(pair, settings.num_steps - 1)
    for number, generator in enumerate((pair.generator, ema.module)):
        settle(generator, pair.num_labels, generator_for(seed, settings.num_steps, number, device=compute.device))
    return ema.module


def _discriminator_step(
    pair: Pair,
    optimizer: torch.optim.Adam,
    data: Images,
    index: Tensor,
    settings: GanPretrainSettings,
    random: torch.Generator,
    compute: Compute,
) -> None:
    num, where = settings.batch_size, {"generator": random, "device": random.device}
    real, labels = data.at(index[torch.randint(len(index), (num,), **where)])
    if settings.horizontal_flip:
        flip = torch.rand(num, **where) < 0.5
        real = torch.where(flip[:, None, None, None], real.flip(3), real)
    with compute.autocast():
        with torch.no_grad():
            made = pair.generator(latent(pair.generator, num, random), labels)
        loss = discriminator_loss(pair.discriminator, real, made.to(real.dtype), labels).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _generator_step(
    pair: Pair,
    optimizer: torch.optim.Adam,
    labels: Tensor,
    settings: GanPretrainSettings,
    random: torch.Generator,
    compute: Compute,
) -> None:
    num = settings.batch_size
    drawn = labels[torch.randint(len(labels), (num,), generator=random, device=random.device)]
    gradient = generator_gradient(pair, latent(pair.generator, num, random), drawn, compute)
    step_generator(pair, optimizer, gradient)


def step_generator(pair: Pair, optimizer: torch.optim.Adam, gradient: tuple[Tensor, ...]) -> None:
    """The generator has taken a step of its optimiser; the discriminator stands."""
    optimizer.zero_grad(set_to_none=True)
    for parameter, value in zip(pair.generator.parameters(), gradient):
        parameter.grad = value.to(parameter.dtype)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _check_finite(pair: Pair, step: int) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in pair.parameters()):
        raise UserError(f"pretraining diverged before step {step + 1}; lower the learning rates of `pretrain`.")
