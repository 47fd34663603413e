"""How a stage computes: what `auto` means, and a compiler that fails."""

import pytest
import torch
from torch import nn

from privimage.compute import Compute
from privimage.settings import ComputeSettings


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize("avx512_bf16", [True, False])
def test_on_a_cpu_auto_is_bfloat16_where_it_has_instructions_for_it(monkeypatch, amx, avx512_bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert Compute().precision == ("bfloat16" if amx or avx512_bf16 else "float32")
    assert Compute(ComputeSettings(precision="float32")).precision == "float32"
    assert Compute(ComputeSettings(precision="bfloat16")).precision == "bfloat16"


def test_autocast_is_on_where_the_precision_is_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        with Compute(ComputeSettings(precision=precision)).autocast():
            assert layer(x).dtype == dtype


def test_without_compilation_a_function_is_itself():
    assert Compute().compiled(len) is len


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that marks what it made, and can be told to fail."""
    calls = []

    def compile(function, **how):
        def made(*args):
            calls.append([a.shape for a in args])
            if args[0].shape == (13,):
                raise RuntimeError("no compiler here\nand a long tale")
            return function(*args)

        return made

    monkeypatch.setattr(torch, "compile", compile)
    return calls


def test_only_the_shapes_of_the_first_call_are_compiled(compiler):
    double = Compute(ComputeSettings(compile=True)).compiled(lambda x: 2 * x)
    for size in (3, 3, 2, 3):
        assert torch.equal(double(torch.ones(size)), torch.full((size,), 2.0))
    assert compiler == [[(3,)]] * 3


def test_where_the_compiler_fails_a_message_says_so_once_and_the_function_goes_on(compiler, capsys):
    double = Compute(ComputeSettings(compile=True)).compiled(lambda x: 2 * x)
    for _ in range(2):
        assert double(torch.ones(13)).sum() == 26
    assert len(compiler) == 1
    told = capsys.readouterr().err
    assert told == "warning: torch.compile failed (no compiler here); going on without it.\n"


def test_a_mistake_of_the_function_itself_is_not_hidden(compiler):
    broken = Compute(ComputeSettings(compile=True)).compiled(lambda x: x @ torch.ones(5))
    with pytest.raises(RuntimeError, match="size"):
        broken(torch.ones(3))
