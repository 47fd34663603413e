"""Work side by side: all of it, in order, each piece on one thread, and the process left as it was."""

import threading

import pytest
import torch

from privimage.privacy.workers import side_by_side


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_come_in_order(workers, count):
    assert list(side_by_side(lambda i: i**2, range(count), workers)) == [i**2 for i in range(count)]


def test_each_piece_computes_on_one_thread_and_the_others_on_as_many_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(3)

    def piece(_):
        torch.ones(1000, 1000).sum()
        return torch.get_num_threads()

    try:
        assert list(side_by_side(piece, range(12), 4)) == [1] * 12
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_pieces_run_at_the_same_time_and_no_more_than_allowed():
    meeting, inside, most = threading.Barrier(2), [], []

    def piece(_):
        inside.append(1)
        most.append(len(inside))
        meeting.wait(timeout=10)
        inside.pop()

    list(side_by_side(piece, range(6), 2))
    assert max(most) == 2


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda i: 1 / i, [1, 0, 1], 2))
