"""Pretraining and the classifier in several real processes: the weights of a single one, after stops and deaths too."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkout import ROOT
from gloo import REFUSED, forked, free_port

from privimage import classifier, stopping
from privimage.artifacts import ImageSet, Provenance, Subset, Weights
from privimage.checkpoints import Checkpoint, flatten
from privimage.classifiers import training as classifying
from privimage.compute import DEFAULT, Compute
from privimage.diffusion import training as diffusing
from privimage.diffusion.denoiser import new_denoiser
from privimage.distributed import ALONE
from privimage.schema import plain
from privimage.settings import ClassifierSettings, ComputeSettings, NetworkSettings, PretrainSettings

RNG = np.random.default_rng(0)
NETWORK = NetworkSettings(base_channels=4, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(4,))
PRETRAIN = PretrainSettings(network=NETWORK, num_steps=5, batch_size=7, learning_rate=1e-2, ema_decay=0.9)
CLASSIFIER = ClassifierSettings(
    block="basic", blocks_per_level=(1, 1), base_channels=8, num_epochs=2, batch_size=9, learning_rate=0.05
)
TRAIN = ImageSet(RNG.integers(0, 256, (25, 8, 8, 1), np.uint8), np.arange(25) % 3, ("a", "b", "c"), "made")
HOLDOUT = replace(TRAIN, images=TRAIN.images[:7], labels=TRAIN.labels[:7])


def pretrained(group, folder, settings=PRETRAIN, compute=DEFAULT, dtype=torch.float64):
    """Everything that pretraining leaves, in a process of the group.

    Adam makes whole steps of gradients that vanish but for their rounding, except in float64.
    """
    torch.set_default_dtype(dtype)
    try:
        model = new_denoiser(NETWORK, 8, 1, 3, seed=0)
        checkpoint = Checkpoint(folder, "x") if group.leads else None
        index, labels = np.arange(0, 25, 2), torch.from_numpy(TRAIN.labels[::2].copy())
        ema = diffusing.train(model, TRAIN.images, index, labels, settings, 0, checkpoint, compute, group)
    finally:
        torch.set_default_dtype(torch.float32)
    return {**flatten("model", model.state_dict()), **flatten("ema", ema.state_dict())}


def classified(group, folder, settings=CLASSIFIER, compute=classifying.FLOAT32):
    """Everything that the classifier's training leaves, in a process of the group; the best epoch at the leader."""
    last, make = {}, classifier.initialised

    def initialised(*how):
        network = make(*how)
        last.update(network.state_dict())  # which goes on with the weights
        return network

    classifier.initialised = initialised
    try:
        checkpoint = Checkpoint(folder, "x") if group.leads else None
        made = classifier.run(TRAIN, HOLDOUT, settings, Provenance("classifier", 1), checkpoint, compute, group,
                              save_seconds=diffusing.SAVE_SECONDS)  # fmt: skip
    finally:
        classifier.initialised = make
    best = {**made.tensors, "accuracy": torch.tensor(made.facts["validation_accuracy"])} if made else {}
    return {**flatten("last", last), **best}


LOOPS = {"pretrain": pretrained, "classifier": classified}
SETTINGS = {"pretrain": PRETRAIN, "classifier": CLASSIFIER}
TOLERANCE = {"pretrain": 1e-9, "classifier": 1e-5}
MODULES = {"pretrain": diffusing, "classifier": classifying}
quick_for_two = [2, pytest.param(4, marks=pytest.mark.slow)]


def furthest(a, b):
    return max((a[name] - b[name]).abs().max().item() for name in a)


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("size", quick_for_two)
@pytest.mark.parametrize("name", LOOPS)
def test_several_processes_end_with_the_weights_of_one(tmp_path, name, size):
    """Shares of a batch differ in size."""
    one = LOOPS[name](ALONE, tmp_path / "one")
    ends = forked(size, lambda group: LOOPS[name](group, tmp_path / "several"), tmp_path)
    assert [end.code for end in ends] == [0] * size
    assert furthest(one, ends[0].value) < TOLERANCE[name]
    assert all(same(ends[0].value, end.value) and end.value for end in ends[1:])


def told_at(step, rank, number, name, folder, every):
    """Work in which one process gets a signal before it takes a step, and the leader saves so often."""

    def work(group):
        module = MODULES[name]
        real, diffusing.SAVE_SECONDS = module.progress, every

        def progress(steps, *how):
            for at in real(steps, *how):
                if (at, group.rank) == (step, rank):
                    os.kill(os.getpid(), number)
                yield at

        module.progress = progress
        return LOOPS[name](group, folder)

    return work


def saved_step(folder):
    checkpoint = Checkpoint(folder, "x")
    step = checkpoint.load()[1]["step"]
    checkpoint._lock.close()
    return step


@pytest.mark.parametrize("then", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", LOOPS)
def test_one_that_is_told_to_stop_stops_all_at_one_step_and_any_number_goes_on_there(tmp_path, name, rank, then):
    one, folder = LOOPS[name](ALONE, tmp_path / "one"), tmp_path / "several"
    ends = forked(2, told_at(3, rank, signal.SIGTERM, name, folder, every=60.0), tmp_path / "stopped")
    assert [end.code for end in ends] == [stopping.EXIT_CODE] * 2
    assert saved_step(folder) == 4
    resumed = forked(then, lambda group: LOOPS[name](group, folder), tmp_path / "resumed")
    assert furthest(one, resumed[0].value) < TOLERANCE[name]
    assert all(same(resumed[0].value, end.value) and end.value for end in resumed[1:])


@pytest.mark.parametrize("rank, then", [(1, 2), *(pytest.param(r, n, marks=pytest.mark.slow) for r, n in
                                                  ((0, 1), (0, 4), (1, 1), (1, 4)))])  # fmt: skip
@pytest.mark.parametrize("name", LOOPS)
def test_one_that_is_killed_ends_all_and_any_number_goes_on_from_what_was_saved(tmp_path, name, rank, then):
    one, folder = LOOPS[name](ALONE, tmp_path / "one"), tmp_path / "several"
    ends = forked(2, told_at(3, rank, signal.SIGKILL, name, folder, every=0.0), tmp_path / "killed")
    assert [ends[rank].code, ends[1 - rank].code] == [-signal.SIGKILL, stopping.EXIT_CODE]
    assert saved_step(folder) == 3
    resumed = forked(then, lambda group: LOOPS[name](group, folder), tmp_path / "resumed")
    assert furthest(one, resumed[0].value) < TOLERANCE[name]
    assert all(same(resumed[0].value, end.value) and end.value for end in resumed[1:])


@pytest.mark.parametrize("name", LOOPS)
def test_weights_that_are_no_longer_finite_are_refused_by_all(tmp_path, name):
    settings = replace(SETTINGS[name], learning_rate=1e300 if name == "pretrain" else 1e30)
    ends = forked(2, lambda group: LOOPS[name](group, tmp_path / "several", settings), tmp_path)
    assert [end.code for end in ends] == [REFUSED] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_there_may_be_more_processes_than_images_in_a_batch(tmp_path, name):
    settings = replace(SETTINGS[name], batch_size=3)
    one = LOOPS[name](ALONE, tmp_path / "one", settings)
    ends = forked(4, lambda group: LOOPS[name](group, tmp_path / "several", settings), tmp_path)
    assert [end.code for end in ends] == [0] * 4 and furthest(one, ends[0].value) < TOLERANCE[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_in_bfloat16_all_agree_to_the_bit_and_with_one_process_to_its_rounding(tmp_path, name):
    how = {"compute": Compute(ComputeSettings(precision="bfloat16"))}
    how |= {"dtype": torch.float32} if name == "pretrain" else {}
    one, exact = LOOPS[name](ALONE, tmp_path / "one", **how), LOOPS[name](ALONE, tmp_path / "exact")
    ends = forked(2, lambda group: LOOPS[name](group, tmp_path / "several", **how), tmp_path)
    assert [end.code for end in ends] == [0, 0] and same(ends[0].value, ends[1].value)
    assert furthest(one, exact) > 0 and furthest(one, ends[0].value) < 2 * furthest(one, exact)


@pytest.mark.slow
@pytest.mark.parametrize("name, compiled", [("classifier", False), ("pretrain", False), ("pretrain", True)])
def test_the_stages_of_the_command_line_leave_one_artifact_and_no_checkpoint(tmp_path, name, compiled):
    TRAIN.write(tmp_path / "train.h5"), HOLDOUT.write(tmp_path / "val.h5")
    Subset("whole", {}, Provenance("select", 1)).write(tmp_path / "subset.json")
    given = {
        "pretrain": ["--public=train.h5", "--subset=subset.json", '--class-names=["a", "b"]', "--seed=0"],
        "classifier": ["--train=train.h5", "--holdout=val.h5"],
    }[name] + ["--compute", json.dumps({"precision": "float32", "compile": compiled})]
    settings = json.dumps(plain(SETTINGS[name]))
    made = {}
    for size in (1, 2):
        words = [*given, "--settings", settings, "--checkpoints", f"state{size}", "--weights", f"weights{size}"]
        done = started(size, name, words, tmp_path)
        assert [process.returncode for process in done] == [0] * size
        assert "failed" not in (tmp_path / "log").read_text(encoding="utf-8")
        assert list((tmp_path / f"state{size}").iterdir()) == []
        made[size] = Weights.read(tmp_path / f"weights{size}", {"pretrain": "diffusion"}.get(name, name))
    assert made[1].provenance == made[2].provenance and list(made[1].tensors) == list(made[2].tensors)
    if name == "classifier":
        assert furthest(made[1].tensors, made[2].tensors) < TOLERANCE[name]


def started(size, name, words, folder):
    """The stage's processes, which ended."""
    address = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    address |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(folder / "log", "w", encoding="utf-8") as log:
        running = [
            subprocess.Popen([sys.executable, "-m", f"privimage.{name}", *words], cwd=folder, stderr=log,
                             env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(size)
        ]  # fmt: skip
        for process in running:
            process.wait(timeout=400)
    return running
