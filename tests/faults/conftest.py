"""What the tests of faults share: the server that starts stages, their inputs, and a table at the end."""

from __future__ import annotations

import pytest
from kills import SEED, undisturbed
from server import Server
from stages import stages, write_inputs

COLUMNS = ("fault", "injected", "held", "seconds")


@pytest.fixture(scope="session")
def server():
    """Starts of stages for a tenth of a second each."""
    with_all_imported = Server()
    yield with_all_imported
    with_all_imported.close()


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """The folder of what stages read. Leave it as it is."""
    folder = tmp_path_factory.mktemp("given")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def all_stages(given):
    """Each long stage by its name."""
    return stages(given)


@pytest.fixture(scope="session")
def calm(server, all_stages, tmp_path_factory):
    """By stage: a trial in which nothing happened, what it left, its seconds. Made when first asked for."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = undisturbed(server, all_stages[name], tmp_path_factory.mktemp(name) / "calm")
        return made[name]

    return get


@pytest.fixture
def row(record_property):
    """Writes a row of the table: the fault, how often it was injected, how often all held."""
    return lambda fault, injected, held: record_property("fault", [fault, injected, held])


def pytest_terminal_summary(terminalreporter):
    """The table, where a process ran the tests itself."""
    rows = [
        (*map(str, value), f"{report.duration:.1f}")
        for report in [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
        for name, value in report.user_properties
        if name == "fault" and report.when == "call"
    ]
    if rows:
        widths = [max(len(line[column]) for line in [COLUMNS, *rows]) for column in range(len(COLUMNS))]
        terminalreporter.write_line(f"\nFAULTS_SEED={SEED}")
        for line in [COLUMNS, *rows]:
            cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
            terminalreporter.write_line("  ".join(cells))
