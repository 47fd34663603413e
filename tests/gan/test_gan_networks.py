"""Generator and discriminator: of the published sizes, conditional where there are classes, no layer mixing images."""

import pytest
import torch
from small_gan import NETWORK, pair

from privimage.diffusion.training import generator_for
from privimage.errors import UserError
from privimage.gan.networks import Discriminator, Generator
from privimage.gan.pair import adopt_labels, new_pair, pair_from, settle
from privimage.gan.settings import GanNetworkSettings

PUBLISHED = {  # resolution -> settings, parameters of generator and discriminator (Li et al. 2024's code, 10 classes)
    32: (GanNetworkSettings(), 9_416_196, 2_372_167),
    64: (
        GanNetworkSettings(
            conv_dim=64,
            generator_multipliers=(16, 8, 4, 2, 1),
            discriminator_multipliers=(1, 2, 4, 8, 16),
            discriminator_halvings=4,
        ),
        11_292_548,
        19_560_775,
    ),
}


@pytest.mark.parametrize("resolution", PUBLISHED)
def test_the_networks_have_the_published_numbers_of_parameters(resolution):
    settings, *published = PUBLISHED[resolution]
    with torch.device("meta"):
        made = [kind(settings, resolution, 3, 10) for kind in (Generator, Discriminator)]
        z, labels = torch.empty(2, made[0].latent_size), torch.empty(2, dtype=torch.int64)
        images = made[0](z, labels)
        assert images.shape == (2, 3, resolution, resolution)
        assert made[1](images, labels).shape == (2,)
    assert [sum(p.numel() for p in network.parameters()) for network in made] == published


@pytest.mark.parametrize("num_labels", [1, 3])
def test_images_and_scores_have_their_shapes_and_depend_on_the_label_where_there_are_several(num_labels):
    made = pair(num_labels).eval()
    z, labels = torch.randn(1, 8).expand(4, 8), torch.tensor([0, 0, num_labels - 1, num_labels - 1])
    images = made.generator(z, labels)
    scores = made.discriminator(images[:1].expand(4, 1, 8, 8), labels)
    assert images.shape == (4, 1, 8, 8) and bool((images.abs() <= 1).all()) and scores.shape == (4,)
    for value in (images, scores):
        torch.testing.assert_close(value[0], value[1])
        assert torch.allclose(value[0], value[2]) == (num_labels == 1)


def test_no_layer_of_the_discriminator_mixes_images():
    made, x, labels = pair().discriminator, torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 0, 1, 1])
    alone = torch.cat([made(x[i : i + 1], labels[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(made(x, labels), alone, rtol=1e-4, atol=1e-5)


def test_the_seed_alone_decides_the_weights_and_the_global_generator_is_left_as_it_was():
    torch.manual_seed(1)
    a = pair()
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    b, c = pair(), new_pair(NETWORK, 8, 1, 2, seed=1)
    assert all(torch.equal(v, b.state_dict()[n]) for n, v in a.state_dict().items())
    assert not torch.equal(a.generator.stem.weight, c.generator.stem.weight)


def test_layers_of_the_generator_have_a_largest_singular_value_of_one():
    made = pair().generator.eval()
    for layer in (made.stem, made.blocks[0].conv1, made.blocks[0].norm1.gain):
        value = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(value) == pytest.approx(1, abs=0.02)


def test_new_classes_start_at_the_mean_of_the_old_ones():
    old = pair(3).eval()
    new = adopt_labels(old, 5).eval()
    z, labels = torch.randn(1, 8), torch.arange(5)
    images = new.generator(z.expand(5, 8), labels)
    assert images.shape == (5, 1, 8, 8)
    torch.testing.assert_close(images, images[:1].expand(5, -1, -1, -1))
    x = torch.randn(1, 1, 8, 8)
    of_old = old.discriminator(x.expand(3, 1, 8, 8), torch.arange(3)).mean()
    torch.testing.assert_close(new.discriminator(x, torch.tensor([4]))[0], of_old)


def test_weights_build_the_pair_again():
    made = pair(3)
    state = made.generator.state_dict(), made.discriminator.state_dict()
    again = pair_from(made.describe(), *state)
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in made.state_dict().items())


def test_settled_statistics_are_those_of_what_the_generator_makes():
    made = pair().generator
    settle(made, 2, generator_for(0))
    with torch.no_grad():
        z, labels = torch.randn(4000, 8, generator=torch.Generator().manual_seed(3)), torch.arange(4000) % 2
        seen = []
        made.norm_out.register_forward_hook(lambda layer, args, output: seen.append(output))
        made(z, labels)
    assert not made.training and not any(m.training for m in made.modules())
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(8), atol=0.1, rtol=0)
    torch.testing.assert_close(seen[0].var((0, 2, 3)), torch.ones(8), atol=0.15, rtol=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"generator_multipliers": (2, 2, 2, 2, 2)}, "do not lead to 8 pixels"),
        ({"z_dim": 1}, "expected at least 2"),
        ({"discriminator_halvings": 3}, "discriminator_halvings is 3"),
    ],
)
def test_networks_that_cannot_be_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        pair(network=type(NETWORK)(**{**NETWORK.__dict__, **change}))
