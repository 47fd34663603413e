"""How many images fit: counted from what autograd keeps, halved when memory runs out."""

import pytest
import torch

from privimage.errors import UserError
from privimage.memory import CPU_BYTES, bytes_kept, images_that_fit, smaller

CPU = torch.device("cpu")


def test_what_autograd_keeps_is_counted_once():
    x = torch.randn(1000, requires_grad=True)
    assert bytes_kept(lambda: x.exp()) == 4000  # the result
    assert bytes_kept(lambda: x * x) == 4000  # the input, which is kept twice
    assert bytes_kept(lambda: x + 1) == 0


@pytest.mark.parametrize(
    ("each", "most", "expected"), [(CPU_BYTES // 10, 100, 8), (1, 100, 100), (2 * CPU_BYTES, 9, 1)]
)
def test_the_number_is_a_power_of_two_or_all(each, most, expected):
    assert images_that_fit(each, CPU, most) == expected


def test_half_as_many_are_tried_when_memory_runs_out(capsys):
    assert smaller(7, torch.OutOfMemoryError()) == 3
    assert smaller(8, RuntimeError("DefaultCPUAllocator: can't allocate memory")) == 4
    assert "out of memory with 7 images" in capsys.readouterr().err
    with pytest.raises(UserError, match="a single image"):
        smaller(1, MemoryError())


def test_other_errors_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match="shapes"):
        smaller(8, RuntimeError("shapes differ"))
