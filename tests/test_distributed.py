"""Several processes compute one stage together: what they tell each other, and that the result is that of one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch
from gloo import in_processes
from small_model import DECLARED, SETTINGS, images, mechanism, model, weights
from torch import Tensor

from privimage import distributed, private_training, stopping
from privimage.compute import Compute
from privimage.distributed import ALONE, Group
from privimage.errors import UserError
from privimage.generators.contract import PrivateTask
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger
from privimage.privacy.randomness import SecretKey
from privimage.public_directions import damping_of
from privimage.settings import ComputeSettings, FinetuneSettings


@pytest.mark.parametrize("count", [0, 1, 5, 16])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_of_all_processes_are_everything_once_and_nearly_equal(count, size):
    shares = [list(range(count))[Group(rank, size).part(count)] for rank in range(size)]
    assert sum(shares, []) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def talk(group: Group):
    tensors = [torch.full((2, 3), float(group.rank + 1)), torch.full((1,), group.rank + 1, dtype=torch.float64)]
    group.add_up(tensors)
    summed = [t.clone() for t in tensors]
    own = torch.arange(4.0).reshape(2, 2).t() * (group.rank == 0)
    group.spread([own])
    squares = list(group.each(lambda n: torch.full((n, 2), n * n, dtype=torch.uint8), [1, 2, 3, 4, 5]))
    told = group.numbers([2**63 - 1, 7] if group.leads else [])
    return group.minimum(5 + group.rank), summed, own, [s.tolist() for s in squares], told, group.numbers([])


def test_processes_tell_each_other_what_they_are_asked_to():
    leader, *others = in_processes(3, talk)
    least, (a, b), own, squares, told, nothing = leader
    assert (a == 6).all() and (b == 6).all() and a.dtype == torch.float32 and b.dtype == torch.float64
    assert squares == [torch.full((n, 2), n * n, dtype=torch.uint8).tolist() for n in (1, 2, 3, 4, 5)]
    for found in (leader, *others):
        assert found[0] == 5 and found[4:] == ([2**63 - 1, 7], [])
        assert torch.equal(found[2], torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
    assert [found[3] for found in others] == [[], []]  # what was computed there is at the leader


def stop_one(group: Group):
    def work():
        if group.rank == 1:
            raise stopping.Stopped("by SIGTERM")
        return "done"

    return group.together(work)


def fill_one(group: Group):
    def work():
        if group.rank == 0:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return "done"

    return group.together(work)


def leave_one(group: Group):
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    group.minimum(1)


@pytest.mark.parametrize("function, kind", [(stop_one, stopping.Stopped), (fill_one, MemoryError)])
def test_what_ends_the_work_of_one_ends_that_of_all(function, kind):
    assert [type(found) for found in in_processes(2, function)] == [kind, kind]


def test_where_one_is_killed_the_others_stop_as_if_told_to():
    killed = in_processes(2, leave_one)
    assert isinstance(killed[0], stopping.Stopped) and killed[1] is None


def test_gpus_without_nccl_are_told_in_one_sentence(monkeypatch):
    monkeypatch.setattr(distributed, "default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="this torch has no NCCL, by which GPUs talk; install one that has it, or"):
        distributed.joined().__enter__()


def fine_tuned(group: Group, settings: FinetuneSettings, num: int = 24):
    """The weights that each process ends with, how often noise was drawn, and which images were looked at."""
    looked, drawn, real, noisy = [], [], private_training.draw_batch, private_training.noisy_mean

    def look(data, index, *rest):
        looked.extend(index.tolist())
        return real(data, index, *rest)

    def draw(*args, **named):
        drawn.append(named["step"])
        return noisy(*args, **named)

    private_training.draw_batch, private_training.noisy_mean = look, draw
    how = replace(mechanism(settings=settings, num_images=num), compute=mechanism(microbatch_size=3).compute)
    try:
        if group.leads:
            made, _, curve = private_training.run(model(), images(num), how, group=group)
            return weights(made), drawn, looked, curve
        made = private_training.assist(model(), images(num), settings, how.compute, group)
        return weights(made), drawn, looked, None
    finally:
        private_training.draw_batch, private_training.noisy_mean = real, noisy


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "q, clip_norm",
    [(0.3, 1e-3), pytest.param(1.0, 1e6, marks=pytest.mark.slow), pytest.param(0.02, 1.0, marks=pytest.mark.slow)],
)
def test_several_processes_fine_tune_to_the_weights_of_one(size, q, clip_norm):
    """At q = 0.02 most samples are empty or of one image: some processes, or all, have nothing to do."""
    settings = replace(SETTINGS, sampling_probability=q, clip_norm=clip_norm)
    alone, noises, everyone, curve = fine_tuned(ALONE, settings)
    found = in_processes(size, fine_tuned, settings)
    for made, *_ in found:
        assert torch.equal(made, found[0][0])  # every process ends with the same
        torch.testing.assert_close(made, alone, rtol=1e-5, atol=1e-6)
    assert [drawn for _, drawn, *_ in found] == [noises] + [[]] * (size - 1)  # noise is added once, by the leader
    assert noises == list(range(SETTINGS.num_steps))
    # The images of all processes are one Poisson sample: each is looked at once where one process would look at it.
    assert sorted(sum((looked for *_, looked, _ in found), [])) == sorted(everyone)
    assert [row[2] for row in found[0][3].rows] == [row[2] for row in curve.rows]


def damped(group: Group) -> Tensor:
    """The weights that each process ends with where gradients are damped."""
    settings, compute = replace(SETTINGS, damped_directions=4), mechanism(microbatch_size=3).compute
    task = PrivateTask(None, images(), DECLARED, settings, 0, public=images(30), compute=compute, group=group)
    start = model()
    how = replace(mechanism(settings=settings), compute=compute, damping=damping_of(start, task))
    if group.leads:
        return weights(private_training.run(start, images(), how, group=group)[0])
    return weights(private_training.assist(start, images(), settings, compute, group, damping=how.damping))


def test_several_processes_damp_gradients_as_one_does():
    alone, (leader, other) = damped(ALONE), in_processes(2, damped)
    assert torch.equal(leader, other)
    torch.testing.assert_close(leader, alone, rtol=1e-4, atol=1e-5)
    plain = weights(private_training.run(model(), images(), mechanism(), group=ALONE)[0])
    assert (alone - plain).abs().max() > 1e-3


EXACT = Compute(ComputeSettings(precision="float32"))  # in bfloat16 how a batch is shared out changes the last bit


def resumed(group: Group, folder, dies_before: int | None):
    """A release whose last process is killed before a step, or that goes on to the end."""
    if group.leads:
        with Ledger(folder, "set", DECLARED).open("finetune", "f" * 32, "test") as release:
            event = Event("poisson_gaussian", 1.0, SETTINGS.sampling_probability, SETTINGS.num_steps)
            release.reserve([event], continuing=release.reserved_steps > 0)
            private_training.SAVE_SECONDS = 0.0
            how = replace(mechanism(release.key), compute=EXACT)
            made, _, curve = private_training.run(model(), images(), how, release, group)
            undisturbed = private_training.run(model(), images(), how)[0]
            return weights(made), weights(undisturbed), [int(row[0]) for row in curve.rows]
    real, steps = private_training._gradient_sum, []

    def until(*args):
        steps.append(args)
        if len(steps) - 1 == dies_before:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    private_training._gradient_sum = until
    private_training.assist(model(), images(), SETTINGS, EXACT, group)
    return None


def test_where_a_process_is_killed_the_leader_saves_and_the_next_start_draws_the_same(tmp_path):
    stopped, _ = in_processes(2, resumed, tmp_path, 3)
    assert isinstance(stopped, stopping.Stopped)
    (again, undisturbed, _), _ = in_processes(2, resumed, tmp_path, None)
    torch.testing.assert_close(again, undisturbed, rtol=1e-5, atol=1e-6)
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


@pytest.mark.slow
def test_with_another_number_of_processes_a_reserved_step_is_skipped_and_never_drawn_again(tmp_path):
    in_processes(2, resumed, tmp_path, 3)  # step 3 was reserved, and is saved as not taken
    (again, undisturbed, taken), *_ = in_processes(4, resumed, tmp_path, None)
    assert not torch.allclose(again, undisturbed, rtol=1e-5, atol=1e-6)
    assert taken == [0, 1, 2, 4, 5]
    assert len(Ledger(tmp_path, "set", DECLARED).odometer()) == 1


def left_at_the_end(group: Group, folder):
    """The second process is gone once all steps are taken."""
    if group.leads:
        return resumed(group, folder, None)
    real, steps = private_training._gradient_sum, []

    def until(*args):
        steps.append(real(*args))
        if len(steps) == SETTINGS.num_steps:
            os.kill(os.getpid(), signal.SIGKILL)

    private_training._gradient_sum = until
    private_training.assist(model(), images(), SETTINGS, EXACT, group)


def test_a_finished_training_is_not_lost_with_a_process_that_dies_at_its_end(tmp_path):
    stopped, _ = in_processes(2, left_at_the_end, tmp_path)
    assert isinstance(stopped, stopping.Stopped)
    (again, undisturbed, _), *_ = in_processes(3, resumed, tmp_path, None)  # with another number of processes
    torch.testing.assert_close(again, undisturbed, rtol=1e-5, atol=1e-6)


def miscounted(group: Group):
    """The second process looks at one image less."""
    how = mechanism(settings=replace(SETTINGS, sampling_probability=1.0))
    if group.leads:
        return private_training.run(model(), images(), how, group=group)
    part = group.part
    object.__setattr__(group, "part", lambda count: slice(part(count).start + 1, part(count).stop))
    return private_training.assist(model(), images(), how.settings, how.compute, group)


def test_no_step_is_taken_on_a_sum_of_other_images_than_were_drawn():
    refused = in_processes(2, miscounted)[0]
    assert isinstance(refused, UserError) and "23 images were added up, 24 were drawn" in str(refused)


def filled(group: Group):
    """The leader has too little memory for the sums that travel."""
    real = torch.cat

    def cat(tensors, *args, **named):
        if group.leads and tensors[0].dtype == torch.float64 and len(tensors) > 5:
            raise MemoryError
        return real(tensors, *args, **named)

    torch.cat = cat
    if group.leads:
        return private_training.run(model(), images(), mechanism(), group=group)
    return private_training.assist(model(), images(), SETTINGS, mechanism().compute, group)


def test_memory_that_runs_out_while_processes_talk_ends_all_of_them():
    leader, other = in_processes(2, filled)
    assert isinstance(leader, UserError) and "out of memory for what the processes tell each other" in str(leader)
    assert isinstance(other, stopping.Stopped)


def digest(group: Group, alike: bool):
    return group.digest("cpu" if alike else f"cpu {group.rank}")


def test_unlike_machines_have_another_name_than_like_ones():
    assert len({in_processes(2, digest, alike)[0] for alike in (True, False, True)}) == 2


def halved(group: Group):
    """The second process has too little memory for more than two images at once."""
    real, sizes = private_training.per_image_loss, []

    def loss(network, batch):
        sizes.append(len(batch.images))
        if group.rank == 1 and len(batch.images) > 2:
            raise MemoryError
        return real(network, batch)

    private_training.per_image_loss = loss
    settings = replace(SETTINGS, sampling_probability=1.0, num_steps=2)
    how = replace(mechanism(SecretKey.from_seed(0), 8, settings))
    if group.leads:
        return weights(private_training.run(model(), images(), how, group=group)[0]), sizes
    return weights(private_training.assist(model(), images(), settings, how.compute, group)), sizes


def test_all_take_the_step_again_with_fewer_images_at_once_where_one_has_too_little_memory():
    (a, sizes), (b, others) = in_processes(2, halved)
    assert torch.equal(a, b) and max(sizes[-6:]) == 2 == max(others[-6:])
    settings = replace(SETTINGS, sampling_probability=1.0, num_steps=2)
    alone = private_training.run(model(), images(), mechanism(SecretKey.from_seed(0), 2, settings))[0]
    torch.testing.assert_close(a, weights(alone), rtol=1e-5, atol=1e-6)
