"""What finds a privacy bug of DP-SGD: each detector judges what the real loop let out, and nothing else.

A detector takes ``Watched`` runs and returns a probability: that a sound loop looks so, or worse. Some answers are
certain, 0 or 1: they compare numbers that must agree or keep a bound. The others are statistical tests, two-sided where
both sides are wrong, in which several tests count as one (Bonferroni). With n statistical detectors an alarm is a
probability below 1e-4 / n, so that one look at sound code raises a false alarm at most once in 10,000.

    neighbour bound        one image more moves the sum by at most C: images of noise, a small and the real network
    neighbours in bfloat16 the same in that precision, with both engines
    opposite images        the same where a white and a black image pull the same weight in opposite ways
    clipped one by one     the sum is that of each image's gradient, by plain autograd, clipped alone
    damped one by one      the same where each is damped before; and the sensitive images tell no direction
    shares                 an image adds C or nothing, whatever is drawn beside it and however many images there are
    not finite             an image whose gradient is not a number adds nothing, and takes nothing from others
    noise size             chi-squared, for each tensor, each step and each image's worth of steps
    noise shape            Kolmogorov-Smirnov and the tails, of 400,000 numbers
    noise between steps    correlation of each step with each, and at each lag
    noise between tensors  correlation of each tensor with each
    noise within tensors   the variance of sums along every axis
    noise beside images    the noise of a step is the same, once, whichever images it has and however they are split
    sampler                each image's count, each step's size, pairs of images, pairs of steps, the whole's count
    keys                   another key draws other noise and other images; no bit of the key is left out
    seeds                  global generators change nothing; fresh keys come from the system
    empty batch            every step is taken, also without images
    only gradients leave   weights, average and buffers are what the recorded gradients alone make of them
    resume                 a replayed step is the same step, all others are fresh, never more than declared
    reserved               no image is read for a step that is not reserved
    audit                  an adversary who looks for one image tells it no better than the noise allows
    stage                  what the stage states and charges is what it did, and its noise is from no seed
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import torch
from scipy import stats
from small_model import damping_for
from torch import Tensor
from watched import (
    BLACK,
    CLIP,
    STAGE,
    STAGE_IMAGES,
    WHITE,
    Cusp,
    Small,
    Table,
    Watched,
    first,
    global_seed,
    mechanism,
    pictures,
    plain,
    sums,
    unet,
)

from privimage import private_training
from privimage.artifacts import ImageSet
from privimage.diffusion.images import Images
from privimage.diffusion.loss import per_image_loss
from privimage.generators.contract import PrivateTask
from privimage.privacy.damping import Damping
from privimage.privacy.dpsgd import noisy_mean, poisson_sample
from privimage.privacy.randomness import SecretKey
from privimage.public_directions import damping_of

ALARM = 1e-4  # of one look at sound code by all detectors together
ROUNDED = 1e-5  # of numbers in float32 that went through a few sums
FAR = (0, 100, 128, 150, 255, 256, 512, 1000, 1024, 4096, 10_000, 65_536, 2**32)  # steps beyond those that are run


def any_of(probabilities: Sequence[float] | np.ndarray) -> float:
    """The probability that one of several tests looks as bad as the worst of these."""
    return min(1.0, float(np.min(probabilities)) * np.size(probabilities))


def certain(sound: bool | Tensor) -> float:
    return 1.0 if bool(sound) else 0.0


def two_sided(law, value) -> np.ndarray:
    """The probability of a value as extreme on either side."""
    return np.minimum(1.0, 2 * np.minimum(law.cdf(value), law.sf(np.asarray(value) - _step_of(law))))


def _step_of(law) -> float:
    return 1.0 if isinstance(law.dist, stats.rv_discrete) else 0.0


def size_test(z: Tensor) -> float:
    """Of standard normals: that their squares add up as they do."""
    return float(two_sided(stats.chi2(z.numel()), float(z.square().sum())))


def correlation_test(a: Tensor, b: Tensor) -> float:
    """Of standard normals independent of ``a``: their component along it is standard normal."""
    return float(two_sided(stats.norm(), float(a @ b / a.norm()))) if a.norm() > 0 else 0.0


def tensors_of(watched: Watched, z: Tensor) -> list[Tensor]:
    """The steps' noise [T, weights] by tensor: [T, *shape] each."""
    parts = z.split([shape.numel() for shape in watched.shapes], dim=1)
    return [part.reshape(len(z), *shape) for part, shape in zip(parts, watched.shapes)]


def bounded(moved: Tensor) -> float:
    """Whether every step moved by at most the bound: not so if a number is not one."""
    return certain((moved.norm(dim=1) <= 1.0).all())


# --- what an image may add --------------------------------------------------------------------------------------------


def neighbour_bound(w: Watched) -> float:
    images = pictures(4, w.seed)
    found = [bounded(w.moved(w.small, first(images, num))) for num in (4, 2)]
    found.append(bounded(w.moved(unet(w.seed), images, num_steps=2)))
    return min(found)


def neighbours_in_bfloat16(w: Watched) -> float:
    image, found = pictures(1, w.seed), []
    for engine in ("fast", "opacus"):
        coarse = {"precision": "bfloat16", "engine": engine}
        found.append(bounded(w.moved(Small(w.seed), image, num_steps=12, compute=coarse)))
    return min(found)


def opposite_images(w: Watched) -> float:
    images = plain([WHITE, BLACK, BLACK, WHITE], [0, 0, 0, 0], 1)
    return min(bounded(w.moved(Table(1), first(images, num), num_steps=8)) for num in (2, 3, 4))


def clipped_one_by_one(w: Watched) -> float:
    models = ((w.small, 24, "fast"), (Small(w.seed), 24, "opacus"), (unet(w.seed), 4, "fast"))
    return min(one_by_one(w, *of) for of in models)


def damped_one_by_one(w: Watched) -> float:
    small, network = Small(w.seed), unet(w.seed)
    found = [
        one_by_one(w, model, num, "fast", damping_for(model, w.seed)) for model, num in ((small, 24), (network, 4))
    ]
    told = []
    for sensitive in (pictures(12, w.seed), pictures(12, w.seed + 1)):
        how = mechanism(w.key, 1.0, damped_directions=2)
        task = PrivateTask(None, sensitive, None, how.settings, 0, public=pictures(12, w.seed + 2), compute=how.compute)
        told.append(damping_of(network, task).tensors())
    same = told[0].keys() == told[1].keys() and all(torch.equal(told[0][name], told[1][name]) for name in told[0])
    return min(*found, certain(same))


def one_by_one(w: Watched, model: torch.nn.Module, num: int, engine: str, damping: Damping | None = None) -> float:
    """Whether a step's sum is that of gradients by plain autograd, each damped and clipped alone."""
    images, how = pictures(num, w.seed), dict(sampling_probability=0.6, num_steps=1)
    rows = [gradient_of(model, images, int(i), w.key) for i in poisson_sample(num, 0.6, w.key, 0)]
    rows = [damped(row, model, damping) for row in rows] if damping else rows
    bound = float(torch.stack(rows).norm(dim=1).median()) if rows else 1.0  # clips some images and not others
    expected = sum((row / max(bound, float(row.norm()) / (1 - 1e-4)) for row in rows), torch.zeros(1))
    again = sums(model, images, w.key, clip_norm=bound, compute={"engine": engine}, damping=damping, **how)
    return certain((again - expected).norm() <= 2e-5 * max(1, len(rows)))


def damped(row: Tensor, model: torch.nn.Module, damping: Damping) -> Tensor:
    """By the definition: what is along each direction is scaled by what is kept of it."""
    directions = torch.cat([damping.directions[name] for name, _ in model.named_parameters()], dim=1).double()
    return row - sum((1 - kept) * (row @ along) * along for along, kept in zip(directions, damping.kept))


def gradient_of(model: torch.nn.Module, images: ImageSet, number: int, key: SecretKey) -> Tensor:
    """The gradient of one image's loss in the first step, by plain autograd."""
    data, how = Images(images.images, images.labels, torch.device("cpu")), mechanism(key, 1.0).settings
    batch = private_training.draw_batch(data, np.array([number]), how, model.num_labels, key.seed("diffusion", 0))
    found = torch.autograd.grad(per_image_loss(model, batch).sum(), list(model.parameters()))
    return torch.cat([part.flatten() for part in found]).double()


def shares(w: Watched) -> float:
    """The declared number of images is not the true one, so that neither that nor the drawn one can be the divisor."""
    none, whole = w.shares.abs() < ROUNDED, (w.shares > 0.999) & (w.shares <= 1.0)
    return certain((none | whole).all() & whole.any())


def not_finite(w: Watched) -> float:
    found = []
    for value in (math.nan, math.inf, None):
        model, images = (Small if value else Cusp)(w.seed), pictures(4, w.seed)
        if value:
            with torch.no_grad():
                model.label.weight[1, 0] = value  # images of the second class: all their numbers, or with inf a few
        images.labels[:] = [0, 0, 1, 1]
        moved = w.moved(model, images, last=2, num_steps=2, microbatch=4)
        found.append(certain(moved.norm(dim=1).max() <= ROUNDED))
    return min(found)


# --- noise ------------------------------------------------------------------------------------------------------------


def far_noise(w: Watched) -> Tensor:
    """The noise of late steps: [steps, 2000]."""
    how = dict(noise_multiplier=2.0, clip_norm=CLIP, expected_batch_size=5.0, key=w.key)
    drawn = [noisy_mean({"a": torch.zeros(2000)}, step=step, **how)["a"] for step in FAR]
    return torch.stack(drawn) * 5.0 / (2.0 * CLIP)


def noise_size(w: Watched) -> float:
    each_tensor = [size_test(part) for part in tensors_of(w, w.noise)]
    return any_of(each_tensor + [size_test(step) for step in (*w.noise, *far_noise(w))])


def noise_shape(w: Watched) -> float:
    z = w.much_noise.numpy()
    found = [stats.kstest(z, "norm").pvalue, certain(len(np.unique(z)) > 0.95 * len(z))]  # of float32: 99.4 % differ
    for limit in (3.0, 4.0):
        for beyond in ((z > limit).sum(), (z < -limit).sum()):
            found.append(float(two_sided(stats.poisson(len(z) * stats.norm.sf(limit)), beyond)))
    return any_of(found)


def noise_between_steps(w: Watched) -> float:
    along = [correlations(z) for z in (w.noise, far_noise(w))]
    lags = range(1, len(w.noise) // 2)
    pairs = [(w.noise[:-lag], w.noise[lag:]) for lag in lags]
    lagged = [float((before * after).sum()) / math.sqrt(after.numel()) for before, after in pairs]
    return any_of([*along, any_of(two_sided(stats.norm(), np.array(lagged)))])


def correlations(z: Tensor) -> float:
    """That no row goes along another, nor along another read backwards."""
    upper = np.triu_indices(len(z), 1)
    found = [(z @ other.T / z.norm(dim=1)).numpy()[upper] for other in (z, z.flip(1))]
    return any_of(two_sided(stats.norm(), np.nan_to_num(np.concatenate(found), nan=99.0)))


def noise_between_tensors(w: Watched) -> float:
    parts = [part.flatten(1) for part in tensors_of(w, w.noise)]
    found = []
    for a, b in combinations(parts, 2):
        width = min(a.shape[1], b.shape[1])
        a, b = a[:, :width], b[:, :width]
        found += [correlation_test(a.flatten(), other.flatten()) for other in (b, b.flip(1))]
    return any_of(found)


def noise_within_tensors(w: Watched) -> float:
    found = [size_test(w.noise.sum(1) / math.sqrt(w.noise.shape[1]))]
    for part in tensors_of(w, w.noise):
        found += [size_test(part.sum(axis) / math.sqrt(part.shape[axis])) for axis in range(1, part.dim())]
    return any_of(found)


def noise_beside_images(w: Watched) -> float:
    beside, alone = w.noise_beside_images, w.noise
    return certain(len(beside) == 4 and (beside - alone[: len(beside)]).abs().max() <= 1e-4)


# --- which images -----------------------------------------------------------------------------------------------------


def drawn(shares: Tensor) -> np.ndarray:
    """Which images took part in which steps: [T, N]."""
    return (shares.numpy() > 0.5).astype(int)


def agreement(law_p: float, inside: np.ndarray) -> float:
    """That every pair of columns, each with independent draws, agrees as often as it does."""
    same = inside.T @ inside + (1 - inside).T @ (1 - inside)
    return any_of(two_sided(stats.binom(len(inside), law_p), same[np.triu_indices(len(same), 1)]))


def extremes(law, values: np.ndarray) -> list[float]:
    """That the largest and the smallest of independent values are what they are, on either side."""
    num, (low, high) = len(values), (values.min(), values.max())
    return [
        law.cdf(high) ** num,
        -math.expm1(num * math.log(law.cdf(high - 1))),
        law.sf(low - 1) ** num,
        -math.expm1(num * math.log(law.sf(low))),
    ]


def sampler(w: Watched) -> float:
    inside, q = drawn(w.shares), w.PROBABILITY
    (steps, num), both = inside.shape, q**2 + (1 - q) ** 2
    spread = q * (1 - q)
    after = (inside[:-1] - q) * (inside[1:] - q) / spread
    many = len(poisson_sample(400_000, q, w.key, 10_000))
    far = np.zeros((len(FAR), 400))
    for row, step in zip(far, FAR):
        row[poisson_sample(400, q, w.key, step)] = 1
    return any_of(
        [
            float(two_sided(stats.binom(inside.size, q), inside.sum())),
            float(two_sided(stats.binom(400_000, q), many)),
            any_of(two_sided(stats.binom(steps, q), inside.sum(0))),
            float(two_sided(stats.chi2(num), ((inside.sum(0) - steps * q) ** 2).sum() / (steps * spread))),
            float(two_sided(stats.chi2(steps), ((inside.sum(1) - num * q) ** 2).sum() / (num * spread))),
            *extremes(stats.binom(num, q), inside.sum(1)),
            agreement(both, inside),
            agreement(both, inside.T),
            agreement(both, far.T),
            float(two_sided(stats.norm(), after.sum() / math.sqrt(after.size))),
        ]
    )


# --- keys and seeds ---------------------------------------------------------------------------------------------------


def keys(w: Watched) -> float:
    found = [correlation_test(a, b) for a, b in zip(w.noise.T, w.noise_of_other_key.T)]
    q, (few, other) = w.PROBABILITY, (drawn(s)[:16] for s in (w.shares, w.shares_of_other_key))
    same = stats.binom(few.size, q**2 + (1 - q) ** 2)
    return any_of([*found, float(two_sided(same, (few == other).sum())), certain(every_bit_counts(w))])


def every_bit_counts(w: Watched) -> bool:
    """Any byte changed draws anew, and as many keys draw as many times: a key of 16 bits would repeat a draw."""
    secret, zero = w.key.secret, {"a": torch.zeros(4)}
    changed = [bytes([*secret[:i], secret[i] ^ 1, *secret[i + 1 :]]) for i in range(len(secret))]
    fresh = [SecretKey.generate().secret for _ in range(2000)]
    masks = {poisson_sample(100, 0.5, SecretKey(s), 0).tobytes() for s in (secret, *changed, *fresh)}
    few = [secret, *changed, *fresh[:1000]]
    how = dict(noise_multiplier=1.0, clip_norm=1.0, expected_batch_size=1.0, step=0)
    noises = {tuple(noisy_mean(zero, key=SecretKey(s), **how)["a"].tolist()) for s in few}
    return len(masks) == 1 + len(changed) + len(fresh) and len(noises) == len(few)


def seeds(w: Watched) -> float:
    generated = []
    for _ in range(2):
        with global_seed(3):
            generated.append([SecretKey.generate().secret for _ in range(500)])
    bits = np.unpackbits(np.frombuffer(b"".join(generated[0] + generated[1]), np.uint8)).reshape(1000, 256)
    same = torch.equal(w.noise[:8], w.noise_again) and torch.equal(w.shares[:6], w.shares_again)
    fresh = len({*generated[0], *generated[1]}) == 1000
    return any_of([certain(same and fresh), any_of(two_sided(stats.binom(1000, 0.5), bits.sum(0)))])


# --- steps ------------------------------------------------------------------------------------------------------------


def empty_batch(w: Watched) -> float:
    return certain(len(w.noise) == 48 and (w.noise != 0).all() and len(w.shares) == w.STEPS)


def only_gradients_leave(w: Watched) -> float:
    found = []
    for left, made in w.left_and_replayed:
        found.append(left.keys() == made.keys() and all(torch.equal(left[name], made[name]) for name in made))
    return certain(all(found))


def resume(w: Watched) -> float:
    ran = [*w.resumed[0], *w.resumed_without_key[0]]
    distinct = [torch.unique(torch.cat(pair), dim=0) for pair in (ran[:2], ran[2:])]
    told = certain(all(len(found) == 6 for found in distinct) and torch.equal(ran[0][3], ran[1][0]))
    pairs = [correlation_test(a, b) for a, b in combinations(torch.cat(distinct), 2)]
    return any_of([told, any_of(pairs)])


def reserved(w: Watched) -> float:
    reads = w.resumed[1]
    return certain(len(reads) >= 4 and all(reads))


def audit(w: Watched) -> float:
    """That so many trials of 2,048 a side tell images apart at the middle between them."""
    with_image, without = w.trial
    law = stats.binom(without.numel(), stats.norm.sf(1.0))  # noise multiplier 1/2, image at 1: a half is one deviation
    wrong = int((with_image <= 0.5).sum()), int((without > 0.5).sum())
    return any_of([float(law.cdf(count)) for count in wrong])


def stage(w: Watched) -> float:
    first, second = w.stage
    (event,) = first.events
    q, steps, noise = event.sampling_probability, event.num_steps, event.noise_multiplier
    asked = (q, steps) == (STAGE.sampling_probability, STAGE.num_steps)
    charged = all(run.charged == [e.as_json() for e in run.events] for run in w.stage)
    told = certain(asked and charged and all(run.same and len(run.gradients) == steps for run in w.stage))
    found = [told, float(two_sided(stats.binom(STAGE_IMAGES * steps, q), sum(first.counts)))]
    z = [run.gradients * STAGE_IMAGES * q / (noise * STAGE.clip_norm) for run in w.stage]
    parts = z[0].split([shape.numel() for shape in first.shapes], dim=1)  # images add to squares, never take from them
    found.append(any_of([float(stats.chi2(part.numel()).cdf(float(part.square().sum()))) for part in parts]))
    # Images of both runs agree: they shift the component by at most the product of their sums.
    a, b = (rows.flatten() for rows in z)
    both = np.dot(first.counts, second.counts) / noise**2 / float(a.norm())
    found.append(2 * float(stats.norm.sf(max(0.0, float(a @ b / a.norm()) - both))))
    law = stats.binom(STAGE_IMAGES, q).pmf(range(STAGE_IMAGES + 1))
    found.append(float((law**2).sum() ** steps) if first.counts == second.counts else 1.0)
    return any_of(found)


CERTAIN: dict[str, Callable[[Watched], float]] = {
    "neighbour bound": neighbour_bound,
    "neighbours in bfloat16": neighbours_in_bfloat16,
    "opposite images": opposite_images,
    "clipped one by one": clipped_one_by_one,
    "damped one by one": damped_one_by_one,
    "shares": shares,
    "not finite": not_finite,
    "noise beside images": noise_beside_images,
    "empty batch": empty_batch,
    "only gradients leave": only_gradients_leave,
    "reserved": reserved,
}
STATISTICAL: dict[str, Callable[[Watched], float]] = {
    "noise size": noise_size,
    "noise shape": noise_shape,
    "noise between steps": noise_between_steps,
    "noise between tensors": noise_between_tensors,
    "noise within tensors": noise_within_tensors,
    "sampler": sampler,
    "keys": keys,
    "seeds": seeds,
    "resume": resume,
    "audit": audit,
    "stage": stage,
}
DETECTORS = {**CERTAIN, **STATISTICAL}


def judge(watched: Watched, names: Sequence[str] = tuple(DETECTORS)) -> dict[str, float]:
    """What each of the detectors says."""
    return {name: DETECTORS[name](watched) for name in names}


def alarms(judged: dict[str, float]) -> list[str]:
    """The detectors that take the loop for unsound."""
    return [name for name, p in judged.items() if not p >= ALARM / len(STATISTICAL)]
