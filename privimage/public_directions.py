"""The directions in which gradients of public images vary most at the start of private training, and its damping there.

Public images are drawn at random and given labels at random: that spans what makes one label's images unlike another's
beside what all of them share. They are seen as sensitive images are seen in a step.

Source: see ``privacy.damping``.
"""

from __future__ import annotations

import numpy as np
import torch

from privimage import stopping
from privimage.diffusion.denoiser import Denoiser
from privimage.diffusion.images import Encode, Images
from privimage.diffusion.loss import per_image_loss
from privimage.errors import UserError
from privimage.generators.contract import PrivateTask
from privimage.memory import is_full
from privimage.privacy.damping import Damping, damping_by
from privimage.privacy.dpsgd import exact_products, public_gradients
from privimage.privacy.per_sample.capture import trained
from privimage.private_training import draw_batch
from privimage.settings import IMAGES_PER_DIRECTION

AT_ONCE = 16  # images, always: another number would round the directions otherwise when a step is replayed


def check_enough(task: PrivateTask) -> None:
    """Return if there are public images enough to tell as many directions as are asked for.

    Raises:
        UserError: if there are not.
    """
    wanted = IMAGES_PER_DIRECTION * task.settings.damped_directions
    if task.public and len(task.public.labels) < wanted:
        raise UserError(
            f"finetune.damped_directions is {task.settings.damped_directions}, which takes {wanted} public images; "
            f"there are {len(task.public.labels)}; lower it to {len(task.public.labels) // IMAGES_PER_DIRECTION} at "
            "most."
        )


def damping_of(model: Denoiser, task: PrivateTask, encode: Encode | None = None) -> Damping | None:
    """The damping of a private training from ``model``, the same in all processes; None where there is none.

    The leader tells it: unlike machines could disagree on which directions are flat.

    Raises:
        UserError: if memory runs out.
    """
    if task.public is None:
        return None
    model = task.compute.place(model)
    made = _told(model, task, encode) if task.group.leads else None
    torch.cuda.empty_cache()  # training's microbatch is what fits into the memory that is free
    count = task.group.numbers([len(made.kept)] if made else [])[0]
    made = made or _blank(model, count)
    task.group.spread([*made.directions.values(), made.kept])
    return made


def _told(model: Denoiser, task: PrivateTask, encode: Encode | None) -> Damping:
    settings, public, seed, compute = task.settings, task.public, task.seed, task.compute
    rng = np.random.default_rng([seed, settings.damped_directions])
    wanted = IMAGES_PER_DIRECTION * settings.damped_directions
    index = np.sort(rng.choice(len(public.labels), wanted, replace=False))
    data = Images(public.images, rng.integers(model.num_labels, size=len(public.labels)), compute.device, encode)

    def losses_of(part: slice) -> torch.Tensor:
        stopping.check()
        batch = draw_batch(data, index[part], settings, model.num_labels, seed)
        with compute.autocast():
            return per_image_loss(model, batch)

    try:
        gradients = public_gradients(
            model,
            losses_of,
            wanted,
            copies=settings.noise_levels_per_image,
            microbatch_size=AT_ONCE,
            engine=compute.settings.engine,
            workers=compute.workers,
        )
        with exact_products():
            return damping_by(gradients, settings.damped_directions)
    except Exception as error:
        if not is_full(error):
            raise
        raise UserError(
            f"the gradients of {wanted} public images do not fit into memory; nothing is charged yet. Lower "
            f"finetune.damped_directions, which takes {IMAGES_PER_DIRECTION} images a direction, or free memory."
        ) from error


def _blank(model: Denoiser, count: int) -> Damping:
    weights = trained(model)
    device = next(iter(weights.values())).device
    directions = {name: torch.empty(count, p.numel(), device=device) for name, p in weights.items()}
    return Damping(directions, torch.empty(count, dtype=torch.float64, device=device))
