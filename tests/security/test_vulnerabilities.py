"""The audit of dependencies: a vulnerability that an update mends fails, no answer is told and does not."""

import importlib.util
import json
import subprocess
import sys

import pytest
from checkout import ROOT


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("vulnerabilities", ROOT / ".ci/vulnerabilities.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(*packages):
    return json.dumps({"dependencies": packages})


def package(name, *fixes, **more):
    vulns = [{"id": "CVE-1", "fix_versions": fix} for fix in fixes]
    return {"name": name, "version": "1.0", "vulns": vulns, **more}


CLEAN = package("torch")
NOT_KNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("answer", "said", "code", "told"),
    [
        (found(CLEAN), "", 0, "1 of 1 packages checked, 0 known"),
        (found(package("pillow", ["13.1"])), "", 1, "pillow 1.0: CVE-1, mended in 13.1"),
        (found(package("pillow", [])), "", 0, "mended in no release yet"),
        (found(CLEAN, package("pip", ["99"])), "", 0, "1 of 1 packages checked, 0 known"),
        (found(CLEAN, NOT_KNOWN), "", 0, "1 of 2 packages checked"),
        (found(NOT_KNOWN), "No known vulnerabilities found", 0, "skipped: the database knows none of 1 packages"),
        ("", "x\nConnectionError: unreachable", 0, "skipped: ConnectionError: unreachable"),
        ("", "", 0, "skipped: pip-audit gave no answer"),
        ("[]", "", 0, "skipped"),
    ],
)
def test_only_what_an_update_mends_fails(audit, answer, said, code, told):
    got, lines = audit.verdict(answer, said)
    assert got == code and told in "\n".join(lines)


def test_no_answer_in_time_is_no_failure(audit, monkeypatch):
    monkeypatch.setattr(audit, "COMMAND", (sys.executable, "-c", "import time; time.sleep(9)"))
    monkeypatch.setattr(audit, "SECONDS", 0.2)
    assert audit.verdict(*audit.ask()) == (0, ["dependency audit skipped: no answer within 0.2 s"])


def test_without_pip_audit_it_says_so(audit, monkeypatch):
    monkeypatch.setattr(audit, "COMMAND", (sys.executable, "-m", "no_such_module"))
    code, (line,) = audit.verdict(*audit.ask())
    assert code == 0 and "No module named no_such_module" in line


def test_continuous_integration_asks():
    text = (ROOT / ".ci/run").read_text()
    assert ".venv/bin/python .ci/vulnerabilities.py" in text and "set -euo pipefail" in text
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"]).returncode == 0
