"""Diffusion noise that depends on a key and the image alone: the same whichever other images are drawn beside it.

A draw is a function of a key and a counter (Philox), computed for all images at once on the device that needs it. This
is the noise of the diffusion model, which must be independent and well mixed; the noise that hides images is drawn
elsewhere, from a cipher.

Source: Salmon et al. 2011 (Philox4x32-10); Box & Muller 1958; Kingma et al. 2021, appendix I (evenly spaced levels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from privimage.diffusion.loss import NoisyBatch

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
SIGMA, NOISE, DROPOUT = range(3)  # what a draw is for: the last word of its counter


def keyed_noise(
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    levels: int,
    P_mean: float,
    P_std: float,
    label_dropout: float,
    no_label: int,
    key: int,
    balanced: bool = False,
) -> NoisyBatch:
    """The batch with K = ``levels`` noise levels and noises an image; a dropped label is dropped for all K.

    ``balanced``: copies in twos, of opposite noise at one level, the levels' quantiles evenly spaced from a random
    start; without a partner for the last if K is odd. Each copy alone is distributed as without.

    Shapes: ``images`` [B, C, H, W] in [-1, 1]; ``labels`` and ``index`` int64 [B], the images' numbers in their set.
    """
    drawn = (levels + 1) // 2 if balanced else levels
    z = spread(uniforms(key, index, SIGMA, 1), drawn) if balanced else normals(key, index, SIGMA, levels)
    noise = normals(key, index, NOISE, drawn * images[0].numel()).view(len(index), drawn, *images.shape[1:])
    if balanced:
        z = z.repeat_interleave(2, 1)[:, :levels]  # [B, K]
        noise = torch.stack([noise, -noise], dim=2).flatten(1, 2)[:, :levels]  # [B, K, C, H, W]
    sigma = torch.exp(P_mean + P_std * z)  # [B, K]
    dropped = uniforms(key, index, DROPOUT, 1)[:, 0] < label_dropout
    return NoisyBatch(images, torch.where(dropped, no_label, labels), sigma, noise)


def normals(key: int, index: Tensor, purpose: int, count: int) -> Tensor:
    """Independent standard normals, float32 [B, count], at most 6.8 in size."""
    pairs = uniforms(key, index, purpose, count + count % 2).unflatten(1, (-1, 2))  # [B, n, 2]
    radius = (-2 * pairs[..., 0].log()).sqrt()
    angle = 2 * math.pi * pairs[..., 1]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)[:, :count]


def spread(start: Tensor, count: int) -> Tensor:
    """Normals [B, count] whose quantiles are evenly spaced from ``start`` [B, 1] in (0, 1] on, around the end."""
    quantiles = (start + torch.arange(count, device=start.device) / count).fmod(1)
    return torch.special.ndtri(quantiles.clamp(1e-7, 1 - 1e-7))


def uniforms(key: int, index: Tensor, purpose: int, count: int) -> Tensor:
    """Independent uniforms on (0, 1], float32 [B, count]."""
    blocks = torch.arange((count + 3) // 4, device=index.device)  # four words each
    shape = (len(index), len(blocks))
    low, high = ((index >> shift & WORD)[:, None].expand(shape) for shift in (0, 32))
    counter = [blocks.expand(shape), low, high, torch.full(shape, purpose, device=index.device)]
    words = torch.stack(philox(counter, key), dim=2).flatten(1)[:, :count]  # [B, count]
    return (words.float() + 0.5) * 2.0**-32


def philox(counter: list[Tensor], key: int) -> list[Tensor]:
    """Four random words for each counter of four words; words are int64 tensors of 0 to 2^32 - 1, the key 64 bits."""
    a, b, c, d = counter
    keys = [key & WORD, key >> 32 & WORD]
    for _ in range(ROUNDS):
        product, other = a * MULTIPLIERS[0], c * MULTIPLIERS[1]  # 64 bits, which int64 holds as they are
        a, b = (other >> 32 & WORD) ^ b ^ keys[0], other & WORD
        c, d = (product >> 32 & WORD) ^ d ^ keys[1], product & WORD
        keys = [(k + step) & WORD for k, step in zip(keys, KEY_STEPS)]
    return [a, b, c, d]
