"""The secret draws: repeatable, independent, of the right distribution, from a key that only its owner can read."""

from __future__ import annotations

import itertools
import stat
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from privimage.errors import UserError
from privimage.privacy.randomness import SecretKey

KEY = SecretKey.from_seed(7)
FALSE_ALARM = 1e-6  # of each statistical test; seeds are fixed, so a test that passes once passes always


def test_the_same_arguments_give_the_same_draw_whatever_was_drawn_between() -> None:
    first = KEY.normal("gradient", 3, 1, shape=(5, 4))
    KEY.normal("gradient", 4, 1, shape=1000)
    np.testing.assert_array_equal(first, SecretKey(KEY.secret).normal("gradient", 3, 1, shape=(5, 4)))


def test_any_other_argument_gives_an_independent_draw() -> None:
    n = 20_000
    draws = {
        "base": KEY.normal("gradient", 1, 2, shape=n),
        "purpose": KEY.normal("query", 1, 2, shape=n),
        "index": KEY.normal("gradient", 1, 3, shape=n),
        "order": KEY.normal("gradient", 2, 1, shape=n),
        "depth": KEY.normal("gradient", 1, 2, 0, shape=n),
        "joined": KEY.normal("gradient", 12, shape=n),
        "negative": KEY.normal("gradient", -1, 2, shape=n),
        "shape": KEY.normal("gradient", 1, 2, shape=(n, 1)).ravel(),
        "longer": KEY.normal("gradient", 1, 2, shape=n + 1)[:n],
        "key": SecretKey.from_seed(8).normal("gradient", 1, 2, shape=n),
        "kind": stats.norm.ppf(KEY.uniform("gradient", 1, 2, shape=n)),
    }
    pairs = list(itertools.combinations(draws, 2))
    bound = stats.norm.isf(FALSE_ALARM / 2 / len(pairs)) / np.sqrt(n)
    for a, b in pairs:
        assert abs(np.corrcoef(draws[a], draws[b])[0, 1]) < bound, (a, b)


def test_successive_steps_and_tensors_are_uncorrelated() -> None:
    steps = np.stack([KEY.normal("gradient", step, 0, shape=4000) for step in range(40)])
    correlation = np.corrcoef(steps)[np.triu_indices(40, 1)]
    assert np.abs(correlation).max() < stats.norm.isf(FALSE_ALARM / 2 / len(correlation)) / np.sqrt(4000)


def test_normals_are_normal() -> None:
    draw = KEY.normal("distribution", shape=400_000)
    assert stats.kstest(draw, "norm").pvalue > FALSE_ALARM
    assert min(stats.chi2.cdf(np.sum(draw**2), len(draw)), stats.chi2.sf(np.sum(draw**2), len(draw))) > FALSE_ALARM
    beyond = int((np.abs(draw) > 4).sum())  # the tails, to which KS is blind
    expected = 2 * stats.norm.sf(4) * len(draw)
    assert stats.poisson.ppf(FALSE_ALARM, expected) <= beyond <= stats.poisson.isf(FALSE_ALARM, expected)


def test_uniforms_are_uniform_and_open() -> None:
    draw = KEY.uniform("distribution", shape=400_000)
    assert stats.kstest(draw, "uniform").pvalue > FALSE_ALARM
    assert draw.min() > 0 and draw.max() < 1


@pytest.mark.parametrize("bits", [b"\x00", b"\xff"])
def test_the_most_extreme_stream_stays_inside_the_interval_and_gives_a_finite_normal(monkeypatch, bits) -> None:
    monkeypatch.setattr(SecretKey, "_stream", lambda self, kind, purpose, indices, sizes, size: bits * size)
    assert 0 < KEY.uniform("extreme", shape=1)[0] < 1
    assert 8.2 < abs(KEY.normal("extreme", shape=1)[0]) < 8.3


def test_seeds_cover_their_range() -> None:
    seeds = [KEY.seed("diffusion", step, image) for step in range(50) for image in range(40)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    counts = Counter(seed >> 60 for seed in seeds)
    assert stats.chisquare([counts[i] for i in range(8)]).pvalue > FALSE_ALARM


@pytest.mark.parametrize("shape", [(), 0, 3, (2, 3), (0, 4)])
def test_shapes(shape) -> None:
    assert KEY.normal("shape", shape=shape).shape == np.empty(shape).shape
    assert KEY.normal("shape", shape=shape).dtype == np.float64


def test_the_stream_is_chacha20_of_rfc_8439() -> None:
    """The keystream of the RFC's test vector A.1 #1, through the same call as the code's."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    stream = Cipher(algorithms.ChaCha20(bytes(32), bytes(16)), mode=None).encryptor().update(bytes(16))
    assert stream.hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_generated_keys_differ_and_print_nothing() -> None:
    key = SecretKey.generate()
    assert key != SecretKey.generate() and len(key.secret) == 32
    assert key.secret.hex() not in repr(key) and repr(key.secret) not in repr(key)


def test_a_key_survives_its_file_which_only_the_owner_can_read(tmp_path) -> None:
    key, path = SecretKey.generate(), tmp_path / "key"
    key.save(path)
    assert SecretKey.load(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_destroyed_key_is_overwritten_and_gone(tmp_path) -> None:
    path, other_name = tmp_path / "key", tmp_path / "hard link"
    SecretKey.generate().save(path)
    other_name.hardlink_to(path)
    SecretKey.destroy(path)
    assert not path.exists()
    assert other_name.read_bytes() == bytes(40)


def test_a_short_key_is_refused(tmp_path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(UserError, match="damaged .5 bytes."):
        SecretKey.load(tmp_path / "key")
