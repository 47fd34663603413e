"""Ordinary training of the denoiser, for public images; draws are keyed by seed and step, so it resumes exactly.

In several processes each computes its share of the step's batch; the weights are those of a single one up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from privimage import stopping
from privimage.checkpoints import Checkpoint, Every, flatten
from privimage.checkpoints import group as under
from privimage.compute import Compute
from privimage.data_parallel import averaging, is_due, prepare, spread
from privimage.diffusion.denoiser import Denoiser
from privimage.diffusion.ema import averaged
from privimage.diffusion.images import Encode, Images
from privimage.diffusion.loss import NoisyBatch, draw_noise, per_image_loss
from privimage.distributed import ALONE, Group, unbroken
from privimage.errors import UserError
from privimage.progress import progress
from privimage.settings import PretrainSettings

SAVE_SECONDS = 60.0
Model = TypeVar("Model", bound=nn.Module)


class Descent(Protocol):
    """What a training by Adam is told."""

    num_steps: int
    batch_size: int
    learning_rate: float
    ema_decay: float


def generator_for(seed: int, *indices: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on the device that depends on the seed and the indices alone."""
    state = np.random.SeedSequence([seed, *indices]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


def train(
    model: Denoiser,
    images: np.ndarray,
    index: np.ndarray,
    labels: Tensor,
    settings: PretrainSettings,
    seed: int,
    checkpoint: Checkpoint | None,
    compute: Compute,
    group: Group = ALONE,
    encode: Encode | None = None,
    part: int = 0,
) -> Denoiser:
    """``model`` is trained in place; returned is the moving average of its weights. Both are the same in all processes.

    Shapes: ``images`` uint8 [M, H, W, C], memory-mapped, of which those at ``index`` [N] are used; ``labels``
    int64 [N]. ``checkpoint`` is the leader's, of which ``part`` is this training's. ``encode`` turns images into what
    the model is of.

    Raises:
        UserError: if the weights are no longer finite.
    """
    numbered = np.zeros(len(images), np.int64)
    numbered[index] = labels.numpy()
    data = Images(images, numbered, compute.device, encode)
    index = torch.from_numpy(index).to(compute.device)

    def draw(step: int) -> NoisyBatch:
        generator = generator_for(seed, step, device=compute.device)
        return _draw(data, index, settings, model.num_labels, generator, group)

    return descend(model, _Losses(model, compute), draw, settings, "pretrain", checkpoint, compute, group, part)


def descend(
    model: Model,
    losses: nn.Module,
    draw: Callable[[int], Any],
    settings: Descent,
    name: str,
    checkpoint: Checkpoint | None,
    compute: Compute,
    group: Group = ALONE,
    part: int = 0,
) -> Model:
    """``model`` is trained in place, by Adam; returned is the moving average of its weights.

    ``draw(step)`` is this process's share of a step's batch, of which ``losses`` gives the losses [B]. ``name`` is that
    of the settings' section, ``part`` the checkpoint's.

    Raises:
        UserError: if the weights are no longer finite.
    """
    ema = averaged(model, settings.ema_decay)
    fused = compute.device.type == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=fused)
    start = _resume(checkpoint, model, ema, optimizer, group, part)
    losses, every = averaging(losses, group), Every(SAVE_SECONDS)
    steps = progress(range(start, settings.num_steps), name, settings.num_steps, start, settings.batch_size)
    with stopping.deferred():
        for step in steps:
            batch = draw(step)
            optimizer.zero_grad(set_to_none=True)
            with unbroken():
                with compute.autocast():
                    losses_here = losses(batch)
                # Gradients are averaged over processes, whose shares may differ by an image.
                weight = group.size / settings.batch_size
                (losses_here.mean() if group.size == 1 else losses_here.sum() * weight).backward()
            optimizer.step()
            ema.update_parameters(model)
            if is_due(every, group):
                _check_finite(model, step, name)
                if checkpoint:
                    _save(checkpoint, step + 1, model, ema, optimizer, part)
                group.check()
    _check_finite(model, settings.num_steps - 1, name)
    return ema.module


class _Losses(nn.Module):
    """The loss [B] of each image of a batch, compiled if that is asked for."""

    def __init__(self, model: Denoiser, compute: Compute) -> None:
        super().__init__()
        self.model, self.losses = model, compute.compiled(per_image_loss)

    def forward(self, batch: NoisyBatch) -> Tensor:
        return self.losses(self.model, batch)


def _check_finite(model: nn.Module, step: int, name: str) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise UserError(f"the training of {name} diverged before step {step + 1}; lower {name}.learning_rate.")


def _draw(
    data: Images,
    index: Tensor,
    settings: PretrainSettings,
    no_label: int,
    generator: torch.Generator,
    group: Group = ALONE,
) -> NoisyBatch:
    """This process's share of the batch that the generator draws."""
    num, part = settings.batch_size, group.part(settings.batch_size)
    drawn = torch.randint(len(index), (num,), generator=generator, device=generator.device)
    flip = None
    if settings.horizontal_flip:
        flip = (torch.rand(num, generator=generator, device=generator.device) < 0.5)[part]
    x, labels = data.at(index[drawn[part]], flip)
    return draw_noise(
        x,
        labels,
        levels=1,
        P_mean=settings.P_mean,
        P_std=settings.P_std,
        label_dropout=settings.label_dropout,
        no_label=no_label,
        generator=generator,
        among=num,
        part=part,
    )


def optimizer_tensors(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """The state of Adam as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Adam goes on from the named tensors, laid out in memory as its weights are, which fused kernels rely on."""
    weights = [p for parameters in optimizer.param_groups for p in parameters["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        weight = weights[int(index)]
        same = value.shape == weight.shape
        state.setdefault(int(index), {})[key] = torch.empty_like(weight).copy_(value) if same else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def training_tensors(model: torch.nn.Module, ema: torch.nn.Module, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Everything that training changes, as named tensors."""
    return {
        **flatten("model", model.state_dict()),
        **flatten("ema", ema.state_dict()),
        **flatten("optimizer", optimizer_tensors(optimizer)),
    }


def restore_training(tensors: dict[str, Tensor], model: torch.nn.Module, ema: torch.nn.Module, optimizer) -> None:
    """Model, average and optimiser go on from ``training_tensors``."""
    model.load_state_dict(under("model", tensors))
    ema.load_state_dict(under("ema", tensors))
    restore_optimizer(optimizer, under("optimizer", tensors))


def _save(checkpoint: Checkpoint, step: int, model, ema, optimizer, part: int) -> None:
    checkpoint.save(training_tensors(model, ema, optimizer), {"step": step}, part)


def _resume(checkpoint: Checkpoint | None, model, ema, optimizer, group: Group, part: int) -> int:
    """The step to go on from, at which every process stands as the leader does."""
    saved = checkpoint.load(part) if checkpoint else None
    if saved:
        restore_training(saved[0], model, ema, optimizer)
    (start,) = group.numbers([saved[1]["step"] if saved else 0])
    if start:
        if not saved:
            prepare(optimizer)
        spread(training_tensors(model, ema, optimizer), group)
    return start
