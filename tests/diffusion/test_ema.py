"""The moving average against its recursion."""

import torch

from privimage.diffusion.ema import averaged


def test_average_follows_its_recursion_with_a_fast_start():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema, expected = averaged(model, 0.9), None
    for n in range(60):
        model.weight.data.fill_(float(n))
        ema.update_parameters(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = float(n) if expected is None else decay * expected + (1 - decay) * n
    torch.testing.assert_close(ema.module.weight.item(), expected, rtol=1e-5, atol=1e-5)
