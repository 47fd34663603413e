"""A clock that goes backwards confuses nobody: the ledger counts charges and not their times."""

from __future__ import annotations

import pytest
from kills import DIED, Trial
from server import Faults
from stages import LONG, quick

from privimage import status


@pytest.mark.parametrize("name", quick(LONG, "finetune"))
def test_a_stage_under_a_clock_that_goes_backwards(server, calm, row, tmp_path, name):
    """A minute at every look: also while a heartbeat is written, and read by `privimage status`."""
    trial, left, _ = calm(name)
    again = Trial(server, trial.stage, tmp_path / "trial")
    environment = {"PRIVIMAGE_STATUS": str(again.place / "state/status")}
    code = again.ended(again.begin(Faults(backwards=True, dies=2), environment), "in the middle")
    assert code in (*DIED, 0), again.context
    if list((again.place / "state/status").glob("*.json")):
        (line,) = status.run(again.place, again.place / "state")
        assert (line.stage.split(":")[0], line.state, line.left) == (name, "stopped", "")
    again.finish(left)
    row(f"a clock that goes backwards, {name}", 1, 1)


def test_charges_out_of_the_order_of_time_are_all_there(server, all_stages, row, tmp_path):
    again = Trial(server, all_stages["query"], tmp_path / "trial")
    for noise in (1.0, 2.0, 3.0):
        assert again.start(Faults(backwards=noise > 1), settings={"noise_multiplier": noise}) == 0, again.context
    assert [charge["events"][0]["noise_multiplier"] for charge in again.odometer()] == [1.0, 2.0, 3.0]
    row("charges under clocks that go backwards", 3, 3)
