"""The place that no hostile file may touch."""

import pytest
from canary import Outside


@pytest.fixture
def outside(tmp_path):
    """A watched folder beside the test's own."""
    made = Outside(tmp_path / "outside")
    yield made
    made.close()
