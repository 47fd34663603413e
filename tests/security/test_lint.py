"""The linter refuses what would run code that a file brings along, and each exception is a known one."""

import re
import subprocess
import sys
import tomllib

import pytest
from checkout import ROOT, project_files

BANNED = (
    "import pickle", "from pickle import loads", "import joblib", "import dill", "import marshal", "import shelve",
    "import torch\n\ntorch.load('x')", "from torch import load", "import torch\n\ntorch.load('x', weights_only=True)",
    "import torch\n\ntorch.jit.load('x')", "import torch.hub", "import numpy as np\n\nnp.load('x', allow_pickle=True)",
    "import numpy as np\n\nnp.load('x')", "import yaml\n\nyaml.load('x', yaml.SafeLoader)",
    "from yaml import full_load",
    "import pandas\n\npandas.read_pickle('x')",
)  # fmt: skip
EXCEPTIONS = {"privimage/metrics/torchscript.py", "privimage/shards.py"}  # of the package; tests write hostile files


def lint(code: str) -> str:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--output-format", "concise"]
    done = subprocess.run([*command, "--stdin-filename", "privimage/x.py", "-"], cwd=ROOT, input=code,
                          capture_output=True, text=True)  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("code", BANNED)
def test_what_runs_the_code_of_a_file_is_banned(code):
    assert "TID251" in lint(f"{code}\n")


def test_plain_readers_are_not():
    assert "All checks passed" in lint("import yaml\n\nyaml.safe_load('a: 1')\n")


def test_the_ban_is_among_the_rules_that_make_lint_runs():
    assert "TID251" in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["select"]


def test_each_exception_is_known():
    found = {
        path.as_posix()
        for path in project_files()
        if path.suffix == ".py" and path.parts[0] != "tests" and "TID251" in (ROOT / path).read_text()
    }
    assert found == EXCEPTIONS
    blanket = [
        path for path in project_files() if path.suffix == ".py" and "ruff: " + "noqa" in (ROOT / path).read_text()
    ]
    assert blanket == [] and not re.search("TID251", str(_per_file_ignores()))


def _per_file_ignores() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
