"""Damping: what it does to gradients, from closed forms; that it bounds nothing is the neighbours' test."""

import pytest
import torch
from small_model import model
from test_dpsgd import batch_of, rows_of

from privimage.artifacts import tensors_sha256
from privimage.diffusion.loss import per_image_loss
from privimage.privacy.damping import Damping, damping_by
from privimage.privacy.dpsgd import ROUNDING, clipped_gradient_sum, public_gradients


def gradients(num, seed=0, decay=0.5):
    """Of two parameters, with second moments that fall from entry to entry."""
    rows = torch.randn(num, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rows = rows * decay ** torch.arange(10)
    return {"a": rows[:, :4], "b": rows[:, 4:]}


def joined(rows):
    return torch.cat([part.flatten(1) for part in rows.values()], dim=1)


def test_directions_are_orthonormal_and_those_of_the_largest_second_moments():
    rows = gradients(50)
    unit = torch.nn.functional.normalize(joined(rows), dim=1)
    moments, vectors = torch.linalg.eigh(unit.T @ unit)
    damping = damping_by(rows, 3)
    found = joined(damping.directions)  # [3, 10]
    torch.testing.assert_close(found @ found.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close((found @ vectors.flip(1)[:, :3]).abs(), torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(damping.kept, (moments[-3] / moments.flip(0)[:3]).sqrt())


def test_damped_public_gradients_are_as_large_along_every_direction_and_untouched_beside_them():
    rows = gradients(50)
    damping = damping_by(rows, 4)
    unit = {name: part / joined(rows).norm(dim=1, keepdim=True) for name, part in rows.items()}
    damped, found = joined(damping(unit)), joined(damping.directions)
    along = (damped @ found.T).square().sum(0)
    torch.testing.assert_close(along, along[-1].expand(4))
    torch.testing.assert_close(along[-1], (joined(unit) @ found[-1]).square().sum())

    def beside(x):
        return x - x @ found.T @ found

    torch.testing.assert_close(beside(damped), beside(joined(unit)))


def test_an_image_is_damped_by_itself_and_counts_alike_whatever_its_gradient_s_norm():
    damping, rows = damping_by(gradients(50), 3), gradients(6, seed=1)
    alone = [joined(damping({name: part[i : i + 1] for name, part in rows.items()})) for i in range(6)]
    torch.testing.assert_close(joined(damping(rows)), torch.cat(alone))
    scales = torch.rand(50, 1, dtype=torch.float64) * 100 + 0.01
    again = damping_by({name: part * scales for name, part in gradients(50).items()}, 3)
    torch.testing.assert_close(again.kept, damping.kept)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_public_gradient_that_is_zero_or_not_finite_says_nothing(value):
    rows = gradients(20)
    more = {name: torch.cat([part, torch.full_like(part[:2], value)]) for name, part in rows.items()}
    torch.testing.assert_close(damping_by(more, 3).kept, damping_by(rows, 3).kept)
    assert torch.isfinite(joined(damping_by(more, 3).directions)).all()


def test_there_are_no_more_directions_than_the_gradients_have():
    rows = {"a": gradients(3)["a"].repeat(4, 1)}
    damping = damping_by(rows, 8)
    assert damping.directions["a"].shape == (3, 4)
    assert (damping.kept < 1).all()


def test_one_direction_that_outweighs_all_others_is_damped_to_a_hundredth():
    rows = torch.zeros(6, 4, dtype=torch.float64)
    rows[:, 0], rows[0, 1] = 1, 1e-4  # what is beside it is flat
    damping = damping_by({"a": rows}, 2)
    torch.testing.assert_close(damping.kept, torch.tensor([0.01], dtype=torch.float64))


def test_a_map_is_known_again_by_its_digest():
    one, same, other = (tensors_sha256(damping_by(gradients(50, seed), 3).tensors()) for seed in (0, 0, 1))
    assert one == same != other


def test_the_sum_is_that_of_damped_then_clipped_gradients():
    """The gradients one by one, by plain autograd."""
    network, batch = model().double(), batch_of(5, 2)
    batch = batch._replace(labels=batch.labels % 3)

    def losses_of(part):
        return per_image_loss(network, rows_of(batch, part))

    rows = public_gradients(network, losses_of, 5, copies=2, microbatch_size=2)
    singles = []
    for i in range(5):
        network.zero_grad()
        losses_of(slice(i, i + 1)).sum().backward()
        singles.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(joined(rows), torch.stack(singles))
    found = torch.linalg.qr(torch.randn(sum(p.numel() for p in network.parameters()), 2, dtype=torch.float64))[0].T
    kept = torch.tensor([0.1, 0.7], dtype=torch.float64)
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    damping = Damping(dict(zip(sizes, found.split(list(sizes.values()), dim=1))), kept)
    damped = torch.stack([g - sum((1 - kept[i]) * (g @ found[i]) * found[i] for i in range(2)) for g in singles])
    norms = damped.norm(dim=1)
    bound = norms.median().item()
    expected = ((bound * (1 - ROUNDING) / norms).clamp(max=1)[:, None] * damped).sum(0)
    total, _ = clipped_gradient_sum(
        network, losses_of, 5, copies=2, clip_norm=bound, microbatch_size=2, damping=damping
    )
    torch.testing.assert_close(torch.cat([t.flatten() for t in total.values()]), expected)
