"""What SECURITY.md names as evidence is there, and its sentences about numbers hold."""

import re

from checkout import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()


def test_every_file_that_the_page_names_exists():
    named = set(re.findall(r"`((?:privimage|tests|workflow|\.ci)/[\w./-]+|[\w]+\.(?:toml|txt))`", TEXT))
    assert len(named) > 30 and [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_test_of_security_is_named_or_stands_behind_one_that_is():
    quiet = {"test_hostile_files.py", "test_hostile_programs.py", "test_security_page.py", "test_vulnerabilities.py"}
    found = {path.name for path in (ROOT / "tests/security").glob("test_*.py")} - quiet
    assert [name for name in sorted(found) if f"tests/security/{name}" not in TEXT] == []


def test_there_are_as_many_hostile_files_and_names_as_it_says():
    from hostile_files import CASES
    from test_hostile_programs import HEADERS, IMAGE_SETS, NETWORK_FILES, TEXTS
    from test_hostile_texts import BEATS, BREAKING, HOSTILE

    tables = (CASES, HEADERS, IMAGE_SETS, NETWORK_FILES, TEXTS, BEATS, BREAKING, HOSTILE)
    (stated,) = re.findall(r"More than (\d+) hostile files", TEXT)
    assert sum(map(len, tables)) > int(stated)
