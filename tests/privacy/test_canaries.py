"""Canaries: exactly C on a coordinate of their own, in by coins and Poisson samples, found as well as noise lets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from privimage.errors import UserError
from privimage.privacy import accounting
from privimage.privacy.auditing import lower_bound
from privimage.privacy.canaries import MUCH, Canaries
from privimage.privacy.dpsgd import noisy_mean
from privimage.privacy.event import Event
from privimage.privacy.randomness import SecretKey

SHAPES = {"weight": (40, 5, 3), "bias": (10,), "other": (30, 13)}  # 1,000 coordinates
PARAMETERS = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
CLIP, BATCH = 1e-3, 50.0
EVENT = Event("poisson_gaussian", 1.0, 0.25, 40)
FALSE_ALARM = 1e-6


def canaries(num: int = 300, event: Event = EVENT, seed: int = 0, parameters=None) -> Canaries:
    return Canaries(
        parameters or PARAMETERS,
        num,
        event,
        clip_norm=CLIP,
        expected_batch_size=BATCH,
        key=SecretKey.from_seed(seed),
    )


def nothing(parameters=None) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(p, dtype=torch.float64) for name, p in (parameters or PARAMETERS).items()}


def added(made: Canaries) -> np.ndarray:
    """What the canaries add at each of 40 steps: [steps, coordinates]."""
    steps = []
    for step in range(40):
        made.add(total := nothing(), step)
        steps.append(torch.cat([part.flatten() for part in total.values()]).numpy())
    return np.stack(steps)


def own_coordinates(made: Canaries) -> np.ndarray:
    """Of each canary, its place in the flattened gradient."""
    numbers = dict(zip(SHAPES, torch.arange(1000).split([600, 10, 390])))
    found = np.zeros(len(made.sums), int)
    for name, (who, where) in made.places.items():
        found[who] = numbers[name].view(SHAPES[name])[where]
    return found


def test_each_canary_that_is_in_adds_exactly_the_clipping_bound_to_a_coordinate_of_its_own_and_no_other_does() -> None:
    made = canaries()
    at, all_steps = own_coordinates(made), added(made)
    assert len(set(at)) == 300
    assert set(np.abs(all_steps).ravel()) == {0.0, CLIP}
    assert not np.delete(all_steps, at[made.included], axis=1).any()
    assert all_steps[:, at[made.included]].any(axis=0).all()


def test_coins_samples_signs_and_tensors_have_the_stated_chances() -> None:
    made = canaries(1000)
    drawn = added(made)[:, own_coordinates(made)[made.included]]
    trials = {
        "in": (made.included.sum(), 1000, 0.5),
        "drawn": ((drawn != 0).sum(), drawn.size, 0.25),
        "positive": ((drawn > 0).sum(), (drawn != 0).sum(), 0.5),
        "in the first tensor": (len(canaries(500).places["weight"][0]), 500, 0.6),
    }
    for name, (found, out_of, chance) in trials.items():
        assert stats.binomtest(int(found), int(out_of), chance).pvalue > FALSE_ALARM, name
    one, two = (drawn[step] for step in (0, 1))
    both = (one != 0) & (two != 0)
    assert len(set((one * two)[both])) == 2  # the sign is another at another step


def having_seen(made: Canaries, values: np.ndarray) -> Canaries:
    """The canaries after an observer saw these values of each, in units of C and by its sign: [canaries, steps]."""
    ((who, where),) = made.places.values()
    for step in range(values.shape[1]):
        mean = torch.zeros(len(values), dtype=torch.float64)
        mean[where] = torch.from_numpy(values[:, step] * made._signs(step) * CLIP / BATCH)[who]
        made.see({"weight": mean}, step)
    return made


def test_the_score_orders_as_the_likelihoods_of_what_was_seen_do() -> None:
    event, values = Event("poisson_gaussian", 0.8, 0.25, 3), np.array([[0.7, -0.3, 0.2], [0.1, 0.4, -0.9]])
    made = having_seen(canaries(2, event, parameters={"weight": torch.zeros(2)}), values)
    present, absent = (stats.norm.logpdf(values, mean, 0.8).sum(axis=1) for mean in (0.25, 0))
    np.testing.assert_allclose(0.25 * MUCH * made.scores, present - absent)


def test_a_coordinate_in_which_much_else_is_seen_is_less_certain_either_way() -> None:
    calm, stirred = np.array([1.0, 1, 1, 1]), np.array([21.0, -19, 21, -19])
    event, values = Event("poisson_gaussian", 1.0, 0.25, 4), np.stack([calm, stirred, -calm, -stirred])
    scores = having_seen(canaries(4, event, parameters={"weight": torch.zeros(4)}), values).scores
    assert scores[0] > 10 * scores[1] > 0 > 10 * scores[3] > scores[2]


def watched(made: Canaries, noise_multiplier: float, gradient=None) -> Canaries:
    """The canaries after all steps of DP-SGD on images whose clipped sum is always the same."""
    for step in range(made.event.num_steps):
        total = {name: value.clone() for name, value in (gradient or nothing()).items()}
        made.add(total, step)
        seen = noisy_mean(
            total,
            noise_multiplier=noise_multiplier,
            clip_norm=CLIP,
            expected_batch_size=BATCH,
            key=SecretKey(made.key.secret[::-1]),
            step=step,
        )
        made.see(seen, step)
    return made


def test_what_images_add_at_every_step_hides_few_canaries(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    steady = {name: torch.from_numpy(rng.normal(0, CLIP, shape)) for name, shape in SHAPES.items()}
    event = Event("poisson_gaussian", 0.5, 0.25, 40)
    calm, disturbed = (watched(canaries(300, event), 0.5, gradient).num_correct(100) for gradient in (None, steady))
    monkeypatch.setattr(Canaries, "_signs", lambda self, step: np.ones(len(self.sums)))
    assert calm == 100 and disturbed > 80 > watched(canaries(300, event), 0.5, steady).num_correct(100)


def test_the_surest_are_called_in_or_out() -> None:
    made = canaries(10)
    made.included[:] = [True, False] * 5
    made.sums[:] = [9, -9, 8, -8, 0, 0, 0, 0, -7, 7]
    assert [made.num_correct(n) for n in (2, 4, 6)] == [2, 4, 4]


@pytest.mark.parametrize("noise, refuted", [(6.0, False), (3.0, True)])
def test_enough_noise_is_not_refuted_and_half_of_it_is(noise, refuted) -> None:
    event, delta = Event("poisson_gaussian", 6.0, 1.0, 9), 1e-5  # as one step with a third of the noise
    claimed, num_runs, found = accounting.epsilon([event], delta), 20, []
    parameters = {"weight": torch.zeros(20_000)}
    for seed in range(num_runs):
        made = watched(canaries(20_000, event, seed, parameters), noise, nothing(parameters))
        found.append(lower_bound(made.num_correct(400), num_guesses=400, num_canaries=20_000, delta=delta))
    beyond = sum(bound > claimed for bound in found)
    print(f"claimed {claimed:.2f}, bounds {min(found):.2f} to {max(found):.2f}, {beyond} of {num_runs} beyond")
    assert beyond > 0.9 * num_runs if refuted else beyond <= 0.05 * num_runs


def test_canaries_that_would_share_coordinates_are_refused() -> None:
    assert len(set(own_coordinates(canaries(1000)))) == 1000
    with pytest.raises(UserError, match="1001 canaries .* the model has 1000"):
        canaries(1001)
