"""torchvision can be imported whatever torch was built for."""

import subprocess
import sys

import pytest

PROGRAM = """
import torch
from privimage.metrics.torchvision_cpu import prepare_torchvision
prepare_torchvision()
prepare_torchvision()
from torchvision.models import squeezenet1_0
from torchvision.transforms.v2.functional import resize
assert squeezenet1_0(num_classes=2).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
assert resize(torch.zeros(1, 3, 8, 8), [4, 4]).shape[-2:] == (4, 4)
"""


@pytest.mark.slow
def test_import_in_a_fresh_process():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
