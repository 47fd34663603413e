"""Privacy bugs, each a small edit of the real code, and the detector that must find it.

An edit names a function, a piece of its text that stands there once, and what to put in its place; the function then
runs the edited code wherever it is called from. Where the real code has changed so that the piece is gone, the edit
refuses: write it anew for the code as it is.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from privimage import finetune, private_training, public_directions
from privimage.privacy import dpsgd
from privimage.privacy.damping import Damping
from privimage.privacy.ledger import Release
from privimage.privacy.per_sample import layers
from privimage.privacy.randomness import SecretKey


@dataclass(frozen=True)
class Mutant:
    """One bug: edits of one function, and the name of a detector that finds it (others may too)."""

    found_by: str
    function: Callable
    edits: tuple[tuple[str, str], ...]

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """The function runs the edited code, until the patch is undone."""
        source = textwrap.dedent(inspect.getsource(self.function))
        for old, new in self.edits:
            if source.count(old) != 1:
                raise ValueError(f"`{old}` stands {source.count(old)} times in {self.function.__qualname__}, not once")
            source = source.replace(old, new)
        names = dict(self.function.__globals__)
        exec(compile(source, "mutant", "exec", __future__.annotations.compiler_flag), names)
        edited = names[self.function.__name__]
        patch.setattr(self.function, "__code__", getattr(edited, "__func__", edited).__code__)


def edit(found_by: str, function: Callable, *edits: str) -> Mutant:
    """A mutant from old and new text in turn."""
    return Mutant(found_by, function, tuple(zip(edits[::2], edits[1::2], strict=True)))


SUM, CLIPPED, MEAN = dpsgd.clipped_gradient_sum, dpsgd._clipped_sum, dpsgd.noisy_mean
RUN, STEP, DRAW, RESUME = (
    private_training.run,
    private_training._step,
    private_training.draw_batch,
    private_training.Saves.resume,
)
POISSON = dpsgd.poisson_sample
SCALE, DRAWN_NOISE = "scale, out = noise_multiplier * clip_norm, {}", 'key.normal("gradient", step, i, shape=shapes[i])'
NEXT_NOISE = DRAWN_NOISE.replace("step,", "step + 1,")
UNIFORM = 'key.uniform("poisson", step, shape=(num_images,))'
MASK = 'np.flatnonzero(key.uniform("poisson", step, shape=(num_images,)) < sampling_probability)'
WEIGHTS = "(clip_norm * (1 - ROUNDING) / norms)"
NORMS = "torch.stack([_squared_norms(rows) for rows in gradients.values()]).sum(0).sqrt()"
ADD = "sums[name] = sum((scale @ few).double() for few, scale in pairs)"
GLOBAL_NOISE = "torch.randn(shapes[i], generator={}, dtype=torch.float64).numpy()"

MUTANTS = {
    # --- noise ---
    "noise halved": edit("noise size", MEAN, SCALE, SCALE.replace("= ", "= 0.5 * ", 1)),
    "noise divided by the batch": edit("noise size", MEAN, SCALE, SCALE.replace(", {}", " / expected_batch_size, {}")),
    "noise not scaled by C": edit("noise size", MEAN, "noise_multiplier * clip_norm", "noise_multiplier * 1e-4"),
    "no noise on one layer": edit("noise size", MEAN, "+ scale *", '+ scale * ("norm" not in name) *'),
    "no noise on the first step": edit("noise size", MEAN, "+ scale *", "+ scale * (step > 0) *"),
    "the same noise each step": edit("noise between steps", MEAN, '"gradient", step, i', '"gradient", 0, i'),
    "noise that repeats after ten steps": edit("noise between steps", MEAN, "step, i,", "step % 10, i,"),
    "noise that repeats after 256 steps": edit("noise between steps", MEAN, "step, i,", "step % 256, i,"),
    "no noise on late steps": edit("noise size", MEAN, "+ scale *", "+ scale * (step < 200) *"),
    "every other step's noise read backwards": edit(
        "noise between steps",
        MEAN,
        "noises = list(",
        "noises = (lambda parts: [p.reshape(s) for p, s in zip(np.split(np.concatenate([p.ravel() for p in parts])"
        "[:: 1 - step % 2 * 2].copy(), np.cumsum([p.size for p in parts])[:-1]), shapes)])(",
        "pool.map(lambda i: " + DRAWN_NOISE,
        "[" + DRAWN_NOISE.replace("step,", "step // 2,"),
        ", range(len(shapes))))",
        " for i in range(len(shapes))])",
    ),
    "noise that depends on the step before": edit(
        "noise between steps", MEAN, DRAWN_NOISE, f"(0.8 * {DRAWN_NOISE} + 0.6 * {NEXT_NOISE})"
    ),
    "the same noise on tensors of one shape": edit("noise between tensors", MEAN, "step, i,", "step,"),
    "noise shared by pairs of tensors": edit(
        "noise between tensors",
        MEAN,
        DRAWN_NOISE,
        "np.resize(key.normal('gradient', step, i // 2, shape=max(int(np.prod(s)) for s in shapes)), shapes[i])",
    ),
    "one number of noise a row": edit(
        "noise within tensors",
        MEAN,
        DRAWN_NOISE,
        "np.broadcast_to(key.normal('gradient', step, i, shape=(*shapes[i][:1], 1)).reshape("
        "-1, *[1] * (len(shapes[i]) - 1)), shapes[i]).copy()",
    ),
    "noise cut off at two deviations": edit("noise shape", MEAN, DRAWN_NOISE, f"(1.137 * {DRAWN_NOISE}.clip(-2, 2))"),
    "uniform noise": edit(
        "noise shape", MEAN, DRAWN_NOISE, f"({DRAWN_NOISE.replace('normal', 'uniform')} - 0.5) * 12**0.5"
    ),
    "Laplace noise": edit(
        "noise shape",
        MEAN,
        DRAWN_NOISE,
        '__import__("scipy.stats").stats.laplace.ppf(key.uniform("gradient", step, i, shape=shapes[i])) / 2**0.5',
    ),
    "noise of 16 bits": edit(
        "noise shape", SecretKey._unit_interval, "np.uint64(12)", "np.uint64(48)", "2.0**-52", "2.0**-16"
    ),
    "noise once a microbatch": edit(
        "noise beside images",
        STEP,
        "noise_multiplier=mechanism.noise_multiplier",
        "noise_multiplier=mechanism.noise_multiplier * max(1, -(-len(index) // microbatch))",
    ),
    "noise scaled by the drawn batch": edit(
        "noise beside images",
        STEP,
        "noise_multiplier=mechanism.noise_multiplier",
        "noise_multiplier=mechanism.noise_multiplier / max(1, len(index))",
    ),
    "noise from a global generator": edit("seeds", MEAN, DRAWN_NOISE, GLOBAL_NOISE.format("None")),
    "noise from the experiment's seed": edit(
        "keys", MEAN, DRAWN_NOISE, GLOBAL_NOISE.format("torch.Generator().manual_seed(1000 * step + i)")
    ),
    # --- keys ---
    "the stage's noise and images from the experiment's seed": edit(
        "stage", finetune._lead, "release.key, task.compute", "type(release.key).from_seed(args.seed), task.compute"
    ),
    "one key for all releases": edit(
        "resume", SecretKey.generate.__func__, "os.urandom(KEY_BYTES)", "bytes(KEY_BYTES)"
    ),
    "keys from a global generator": edit(
        "seeds", SecretKey.generate.__func__, "os.urandom(KEY_BYTES)", "np.random.bytes(KEY_BYTES)"
    ),
    "one byte of the key used": edit("keys", SecretKey._cipher, "key=self.secret", "key=self.secret[:1]"),
    "a key of 16 bits": edit(
        "keys", SecretKey._cipher, "key=self.secret", "key=hashlib.blake2b(self.secret, digest_size=2).digest()"
    ),
    "noise from 16 bits of the key": edit(
        "keys",
        MEAN,
        DRAWN_NOISE,
        "np.random.default_rng([int(key.identity[:4], 16), step, i]).standard_normal(shapes[i])",
    ),
    # --- clipping ---
    "clipping of each layer": edit(
        "neighbour bound",
        CLIPPED,
        "for few, scale in pairs",
        "for few, scale in [(few, (clip_norm / few.norm(dim=1)).clamp(max=1)) for few in rows.split(SUMMED)]",
    ),
    "clipping of the batch's sum": edit(
        "opposite images",
        SUM,
        "total[name] += value.view_as(total[name])",
        "total[name] += value.view_as(total[name])"
        "\n        whole = sum(value.square().sum() for value in total.values()).sqrt()\n"
        "        total = {name: value * min(1.0, clip_norm / float(whole)) for name, value in total.items()}",
        "_clipped_sum(gradients, clip_norm, damping)",
        "_clipped_sum(gradients, 1e9, damping)",
    ),
    "copies clipped one by one and summed": edit(
        "neighbour bound",
        SUM,
        "(model, copies)",
        "(model, 1)",
        "part.stop - part.start)",
        "(part.stop - part.start) * copies)",
    ),
    "copies clipped one by one and averaged": edit(
        "clipped one by one",
        SUM,
        "(model, copies)",
        "(model, 1)",
        "part.stop - part.start)",
        "(part.stop - part.start) * copies)",
        "_clipped_sum(gradients, clip_norm, damping)",
        "_clipped_sum(gradients, clip_norm / copies, damping)",
    ),
    "a bias not clipped": edit("neighbour bound", CLIPPED, "(scale @ few)", '(scale ** ("bias" not in name) @ few)'),
    "the norm without one layer": edit(
        "neighbour bound",
        CLIPPED,
        "in gradients.values()]",
        'in [g for n, g in gradients.items() if "norm" not in n] or [0]]',
    ),
    "clipping by the largest entry": edit(
        "neighbour bound",
        CLIPPED,
        NORMS,
        "torch.stack([g.flatten(1).abs().amax(1) for g in gradients.values()]).amax(0)",
    ),
    "the bound doubled": edit(
        "shares",
        private_training._gradient_sum,
        "clip_norm=settings.clip_norm",
        "clip_norm=2 * settings.clip_norm",
    ),
    "clipping to C and a little more": edit("shares", CLIPPED, "(1 - ROUNDING)", "(1 + ROUNDING)"),
    "no room for rounding": edit("shares", CLIPPED, "(1 - ROUNDING)", "1.0"),
    "clipping to the batch's mean norm": edit(
        "neighbour bound",
        CLIPPED,
        "weights = ",
        "clip_norm = float(norms[torch.isfinite(norms)].mean())\n    weights = ",
    ),
    "no clipping": edit("shares", CLIPPED, WEIGHTS, "(norms + 1)"),
    "a contribution in bfloat16": edit(
        "neighbours in bfloat16", CLIPPED, "(scale @ few)", "(scale.bfloat16() @ few.bfloat16())"
    ),
    "division by the drawn batch": edit(
        "shares", STEP, "settings.sampling_probability * mechanism.num_images", "max(1, len(index))"
    ),
    "division by the true number of images": edit("shares", STEP, "* mechanism.num_images", "* len(data.labels)"),
    "a NaN image let through": edit("not finite", CLIPPED, "if mask:", "if False:"),
    "NaN made zero after clipping": edit("not finite", CLIPPED, "if mask:", "if False:", ADD, f"{ADD}.nan_to_num()"),
    "NaN made zero before the norm": edit(
        "not finite",
        CLIPPED,
        "norms = ",
        "gradients = {n: g.nan_to_num(0, 1, -1) for n, g in gradients.items()}\n    norms = ",
    ),
    "half of an embedding's gradient lost": edit(
        "clipped one by one", layers.embedding, "accumulate=True", "accumulate=False"
    ),
    "a share of its neighbour's gradient": edit(
        "clipped one by one",
        CLIPPED,
        "norms = ",
        "gradients = {n: g + 0.5 * g.roll(1, 0) for n, g in gradients.items()}\n    norms = ",
    ),
    # --- damping ---
    "directions told by the sensitive images": edit(
        "damped one by one", public_directions._told, "task.settings, task.public,", "task.settings, task.images,"
    ),
    "damped by what the images of a batch have in common": edit(
        "damped one by one", Damping.__call__, "along * (1", "along.mean(0, keepdim=True).expand_as(along) * (1"
    ),
    "damped along all others as well": edit(
        "damped one by one", Damping.__call__, "lost = along", "along = along.flip(0)\n    lost = along"
    ),
    # --- which images ---
    "the experiment's seed drives the mask": edit(
        "keys",
        POISSON,
        UNIFORM,
        "np.random.default_rng([0, step]).random(num_images)",
    ),
    "a global generator drives the mask": edit("seeds", POISSON, UNIFORM, "np.random.random(num_images)"),
    "shuffled batches": edit(
        "sampler",
        POISSON,
        f"return {MASK}",
        "size = max(1, round(num_images * sampling_probability))\n"
        "    epoch, place = divmod(step, max(1, num_images // size))\n"
        '    order = np.argsort(key.uniform("poisson", epoch, shape=(num_images,)))\n'
        "    return np.sort(order[place * size : (place + 1) * size])",
    ),
    "batches of a fixed size": edit(
        "sampler",
        POISSON,
        MASK,
        f"np.sort(np.argsort({UNIFORM})[: round(num_images * sampling_probability)])",
    ),
    "batches drawn with replacement": edit(
        "shares",
        POISSON,
        MASK,
        '(key.uniform("poisson", step, shape=(round(num_images * sampling_probability),)) * num_images).astype(int)',
    ),
    "a largest batch": edit(
        "sampler", POISSON, f"{MASK}", f"{MASK}[: max(1, round(num_images * sampling_probability))]"
    ),
    "another probability than stated": edit(
        "sampler", STEP, "settings.sampling_probability, mech", "1.15 * settings.sampling_probability, mech"
    ),
    "the probability squared": edit("sampler", POISSON, "< sampling_probability", "< sampling_probability**2"),
    "the same images in two steps": edit("sampler", POISSON, "step, shape", "step // 2, shape"),
    "the same images after 1,024 steps": edit("sampler", POISSON, "step, shape", "step % 1024, shape"),
    "images in pairs": edit(
        "sampler",
        POISSON,
        MASK,
        MASK.replace("num_images,", "(num_images + 1) // 2,").replace(" <", ".repeat(2)[:num_images] <"),
    ),
    "one image always in": edit(
        "sampler", POISSON, MASK, f"np.union1d([0] * (sampling_probability > 1e-6), {MASK}).astype(int)"
    ),
    "diffusion noise by place in the batch": edit(
        "clipped one by one",
        DRAW,
        "*data.at(rows),\n        rows,",
        "*data.at(rows),\n        torch.arange(len(rows)),",
    ),
    # --- what leaves ---
    "buffers leak": edit(
        "only gradients leave",
        RUN,
        "    ema = averaged",
        '    model.register_buffer("seen", torch.zeros(()))\n'
        "    model.register_forward_pre_hook(lambda m, given: (m.seen.copy_(given[0].mean()), None)[1])"
        "\n    ema = averaged",
    ),
    "the sum without noise moves the weights too": edit(
        "only gradients leave",
        STEP,
        "    return row",
        "    with torch.no_grad():\n        for name, p in model.named_parameters():\n"
        "            p -= 1e-3 * total[name].view_as(p)\n    return row",
    ),
    "the average follows the sum without noise": edit(
        "only gradients leave",
        RUN,
        "ema.update_parameters(model)",
        "ema.update_parameters(model)\n        with torch.no_grad():\n"
        "            next(ema.module.parameters()).add_(1e-3 * rows[-1][1])",
    ),
    "empty batches left out": edit(
        "empty batch",
        STEP,
        "    work = ",
        "    if not len(index):\n        return step, 0.0, 0\n\n    work = ",
    ),
    "no noise on empty batches": edit(
        "empty batch",
        STEP,
        "noise_multiplier=mechanism.noise_multiplier",
        "noise_multiplier=mechanism.noise_multiplier * (len(index) > 0)",
    ),
    # --- steps ---
    "the generator starts anew on resume": edit(
        "resume", RUN, "mechanism, size, step, group)", "mechanism, size, step - start, group)"
    ),
    "one step more": edit(
        "empty batch", RUN, "range(start, settings.num_steps)", "range(start, settings.num_steps + (release is None))"
    ),
    "steps after a lost key taken again": edit("resume", RESUME, "max(kept, self.release.reserved_steps)", "kept"),
    "a new key at each start": edit("resume", Release._load, "if not self.replayable:", "if True:"),
    "a step reserved after it is taken": edit(
        "reserved",
        RUN,
        "            if release:\n                release.reserve_step(step)\n",
        "",
        "            ema.update_parameters(model)",
        "            ema.update_parameters(model)\n            if release:\n                release.reserve_step(step)",
    ),
    "a picture beside the weights": edit(
        "stage",
        finetune._lead,
        "weights = Weights(",
        'made.tensors["raw.seen"] = __import__("torch").from_numpy(task.images.images[0] / 255.0)\n'
        "            weights = Weights(",
    ),
    "less noise than stated": edit(
        "stage", finetune._lead, "Mechanism(settings, noise_multiplier,", "Mechanism(settings, 0.7 * noise_multiplier,"
    ),
    "another probability stated than used": edit(
        "stage",
        finetune._lead,
        "replace(unit, noise_multiplier=noise_multiplier)",
        "replace(unit, noise_multiplier=noise_multiplier, sampling_probability=unit.sampling_probability / 2)",
    ),
    "a charge for more noise than was drawn": edit(
        "stage",
        finetune._lead,
        "release.reserve([event]",
        "release.reserve([replace(event, noise_multiplier=2 * noise_multiplier)]",
        "if release.charged != [event]:",
        "if False:",
    ),
    "a quarter of the noise": edit("audit", MEAN, SCALE, SCALE.replace("= ", "= 0.25 * ", 1)),
}
