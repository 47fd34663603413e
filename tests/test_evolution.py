"""Private Evolution: one vote an image, noise drawn once a generation, and nothing but noisy votes decides."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from small_model import DECLARED, NAMES, images, model
from torch import nn

from privimage.classifiers.resnet import ResNet
from privimage.compute import DEFAULT
from privimage.errors import UserError
from privimage.evolution import loop, votes
from privimage.evolution.loop import Evolution, Voting, run
from privimage.evolution.operators import SIGMA_MAX, Operators
from privimage.generators.evolution import EvolutionSettings, event
from privimage.privacy.accounting import calibrate, epsilon
from privimage.privacy.event import Event, noisy_votes
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.settings import ClassifierSettings

SETTINGS = EvolutionSettings(
    population_size=10, candidates_per_class=3, num_generations=3, lookahead=1, num_sampler_steps=2
)
VOTES = Event("discrete_gaussian", 1.0, num_steps=3)


def classifier():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(ClassifierSettings(block="basic", blocks_per_level=(1,), base_channels=4), 1, 3).eval()


def drawing_model():
    """A denoiser that draws unlike images: one that was not trained draws grey."""
    made, generator = model(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def evolution(settings=SETTINGS):
    operators = Operators(drawing_model(), settings.num_sampler_steps, 0, DEFAULT)
    return Evolution(operators, 2, settings, public_labels=False)


def voting(key=None, noise_multiplier=1.0, of=None):
    return Voting(of or images(), classifier(), noise_multiplier, key or SecretKey.from_seed(0), DEFAULT)


def same(a, b):
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)


# Accounting.


@pytest.mark.parametrize("target, steps, others", [(1.0, 1, []), (1.0, 5, [noisy_votes(1, 10.0)]), (10.0, 4, [])])
def test_votes_are_calibrated_to_what_they_cost(target, steps, others):
    how = {"sampling_probability": 1.0, "num_steps": steps, "epsilon": target, "delta": 5e-5}
    found = calibrate(others, **how, mechanism="discrete_gaussian")
    made = replace(event(replace(SETTINGS, num_generations=steps)), noise_multiplier=found)
    assert target - 1e-3 <= epsilon([*others, made], 5e-5) <= target


@pytest.mark.parametrize("multiplier, steps", [(10.0, 4), (5.0, 9)])
def test_generations_cost_what_one_gaussian_of_the_root_of_their_number_costs(multiplier, steps):
    mu, said = np.sqrt(steps) / multiplier, epsilon([Event("discrete_gaussian", multiplier, num_steps=steps)], 1e-5)
    delta = norm.cdf(mu / 2 - said / mu) - np.exp(said) * norm.cdf(-mu / 2 - said / mu)  # Balle & Wang 2018
    assert delta == pytest.approx(1e-5, rel=0.01)


# One image more adds one vote.


def test_one_image_more_adds_one_to_one_count_of_its_class_whatever_the_candidates_are():
    everyone, candidates = images(24), evolution().first()
    ahead, network = evolution().seen(candidates, classifier(), 0), classifier()

    def counts(index):
        seen = votes.features(network, everyone.images[index])
        return votes.counted(seen, torch.from_numpy(everyone.labels[index]), ahead, candidates.labels)

    whole = counts(np.arange(24))
    assert whole.sum() == 24
    for left_out in range(24):
        change = whole - counts(np.delete(np.arange(24), left_out))
        assert sorted(change) == [0] * (len(change) - 1) + [1]
        assert candidates.labels[change.argmax()] == everyone.labels[left_out]


def test_an_image_that_no_feature_is_known_of_still_has_one_vote():
    seen = torch.tensor([[torch.nan], [torch.inf], [1.0]])
    labels, candidates = torch.zeros(3, dtype=torch.int64), torch.tensor([[0.0], [1.1]])
    assert votes.counted(seen, labels, candidates, torch.zeros(2, dtype=torch.int64)).sum() == 3


# Noise, once a generation.


class Killed(BaseException):
    pass


def start(folder, monkeypatch, *, kill=None, environment=None, drawn):
    """One start of a release; it is killed in generation ``kill[0]``, before or after its noise is ``drawn``."""
    real = loop.discrete_gaussian

    def noisy(counts, noise_multiplier, key, purpose, generation):
        if kill == (generation, "before"):
            raise Killed
        result = real(counts, noise_multiplier, key, purpose, generation)
        drawn.append((generation, key.identity, tuple(result), tuple(counts)))
        if kill == (generation, "after"):
            raise Killed
        return result

    monkeypatch.setattr(loop, "discrete_gaussian", noisy)
    if environment:
        monkeypatch.setattr(type(DEFAULT), "describe", lambda self: environment)
    try:
        with Ledger(folder, "set", DECLARED).open("finetune", "f" * 32, "test") as release:
            release.reserve([VOTES], continuing=release.reserved_steps > 0)
            return run(evolution(), voting(release.key), release)[0]
    except Killed:
        return None
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize("generation, moment", [(0, "after"), (1, "after"), (1, "before"), (2, "after")])
def test_a_killed_generation_is_replayed_with_the_same_votes_and_noise_and_charged_once(
    tmp_path, monkeypatch, generation, moment
):
    drawn = []
    assert start(tmp_path, monkeypatch, kill=(generation, moment), drawn=drawn) is None
    key = SecretKey.load(tmp_path / "set" / "finetune" / ("f" * 32) / "key")
    resumed = start(tmp_path, monkeypatch, drawn=drawn)
    assert same(resumed, run(evolution(), voting(key))[0])
    assert sorted({draw[0] for draw in drawn}) == [0, 1, 2] and len(set(drawn)) == 3  # a replay repeats a draw exactly
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


@pytest.mark.parametrize("generation", [1, 2])
def test_a_generation_that_cannot_be_replayed_is_skipped(tmp_path, monkeypatch, capsys, generation):
    drawn = []
    start(tmp_path, monkeypatch, kill=(generation, "after"), drawn=drawn)
    made = start(tmp_path, monkeypatch, environment={"threads": "other"}, drawn=drawn)
    assert [draw[0] for draw in drawn] == [0, 1, 2]  # none twice
    assert "1 of 3 generations were reserved" in capsys.readouterr().err
    assert len(made.images) == SETTINGS.population_size
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


def test_a_run_of_which_nothing_would_be_left_is_refused(tmp_path, monkeypatch):
    one = replace(SETTINGS, num_generations=1)
    with Ledger(tmp_path, "set", DECLARED).open("finetune", "f" * 32, "test") as release:
        release.reserve([replace(VOTES, num_steps=1)])
        monkeypatch.setattr(loop.Saves, "save", lambda *_: None)
        run(evolution(one), voting(release.key), release)
        with pytest.raises(UserError, match="all 1 generations were reserved"):
            run(evolution(one), voting(release.key), release)


# What decides.


def other_images():
    rng = np.random.default_rng(7)
    return replace(images(), images=rng.integers(0, 256, (24, 8, 8, 1), np.uint8))


def test_what_votes_are_told_decides_and_nothing_else_of_the_images(monkeypatch):
    told = lambda counts, *_: np.arange(len(counts)) % 5  # noqa: E731
    monkeypatch.setattr(loop, "discrete_gaussian", told)
    (a, _), (b, _) = (run(evolution(), voting(of=of)) for of in (images(), other_images()))
    assert same(a, b)


def test_endless_noise_hides_the_images():
    (a, _), (b, _) = (run(evolution(), voting(noise_multiplier=2.0**39, of=of)) for of in (images(), other_images()))
    assert same(a, b)
    c, _ = run(evolution(), voting(SecretKey.from_seed(1), noise_multiplier=2.0**39))
    assert not same(a, c)


class GreyOperators:
    """Images of one grey value: any value at random, a variation's within sigma of its parent's."""

    model = SimpleNamespace(num_labels=2)

    def generator(self, *draw):
        return torch.Generator().manual_seed(hash(draw))

    def random(self, labels, *draw):
        return self._grey(256 * torch.rand(len(labels), generator=self.generator(*draw)))

    def variation(self, parents, labels, sigma, *draw):
        noise = sigma * torch.randn(len(labels), generator=self.generator(*draw))
        return self._grey(parents[:, 0, 0, 0] + noise)

    def _grey(self, values):
        return values.clamp(0, 255).to(torch.uint8)[:, None, None, None].expand(-1, 8, 8, 1)


class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def features(self, x):
        return x.mean(dim=(1, 2, 3))[:, None]


def test_with_little_noise_each_class_gathers_where_its_images_are():
    pixels = np.where(np.arange(200) % 2, 200, 60).astype(np.uint8)[:, None, None, None]
    sensitive = replace(images(), images=np.tile(pixels, (1, 8, 8, 1)), labels=np.arange(200) % 2)
    settings = replace(SETTINGS, population_size=100, candidates_per_class=20, sigma_first=30.0, sigma_last=3.0)
    made, _ = run(
        Evolution(GreyOperators(), 2, settings, public_labels=False),
        Voting(sensitive, Grey(), 1.0, SecretKey.from_seed(0), DEFAULT),
    )
    assert made.labels.bincount().tolist() == [50, 50]
    for label, grey in ((0, 60), (1, 200)):
        values = made.images[made.labels == label].double().mean(dim=(1, 2, 3))
        assert abs(values.mean() - grey) < 10 and values.std() < 15


def test_chances_are_shares_of_the_votes_above_the_threshold_or_even():
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    found = votes.chances(np.array([6, 3, -4, 2, 2, -1]), labels, threshold=2.5)
    assert found.tolist() == [1, 1, 0, 0, 0, 0]
    found = votes.chances(np.array([6, 1, -4, 2, 2, -1]), labels, threshold=2.0)
    assert found.tolist() == [0.75, 0, 0, 1, 0.25, 0]
    assert votes.chances(np.array([6, 1, 0, 0, 0, -9]), labels, threshold=2.0)[labels == 1].tolist() == pytest.approx(
        [1 / 3] * 3
    )


def test_parents_are_drawn_as_often_as_their_chance_says():
    labels, chance = torch.tensor([0, 1, 0, 1]), torch.tensor([0.25, 0.0, 0.75, 1.0], dtype=torch.float64)
    wanted = torch.arange(80) % 2
    found = votes.parents(chance, labels, wanted, torch.Generator().manual_seed(0))
    assert torch.equal(labels[found], wanted)
    assert found.bincount(minlength=4).tolist() == [10, 0, 30, 40]


def test_the_noise_of_variations_falls_geometrically():
    sigmas = [evolution().sigma(generation) for generation in (1, 2, 3)]
    assert sigmas == pytest.approx([20.0, 20**0.5, 1.0])
    assert evolution(replace(SETTINGS, num_generations=1)).sigma(1) == 1.0


def test_a_variation_keeps_more_of_the_image_the_less_noise_it_gets():
    operators = Operators(drawing_model(), 5, 0, DEFAULT)
    pixels, labels = torch.from_numpy(images().images), torch.from_numpy(images().labels)
    moved = [
        float((operators.variation(pixels, labels, sigma, 1).double() - pixels.double()).abs().mean())
        for sigma in (0.003, 0.3, SIGMA_MAX)
    ]
    assert moved[0] < 2 < moved[1] < moved[2]
    assert len(operators.random(labels, 3).flatten(1).unique(dim=0)) == 24
    assert torch.equal(operators.random(labels, 3), operators.random(labels, 3))
    assert not torch.equal(operators.random(labels, 3), operators.random(labels, 4))


def test_a_model_that_knows_public_labels_alone_draws_over_all_of_them():
    settings = replace(SETTINGS, candidates_per_class=20)
    operators = Operators(model(), 3, 0, DEFAULT)
    made = Evolution(operators, 4, settings, public_labels=True).first()
    assert made.labels.bincount().tolist() == [20] * 4 and len(NAMES) == 2
    assert set(made.conditions.tolist()) == {0, 1}
