"""The versions that were tested together are written once, and every copy agrees with them."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def requirements(section):
    return {re.split(r"[\[<>=]", text)[0] for text in section}


def test_every_dependency_has_a_tested_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = requirements(project["optional-dependencies"]["dev"] + project["optional-dependencies"]["cluster"])
    wanted = (requirements(project["dependencies"]) | extras) | {"snakemake-executor-plugin-slurm-jobstep"}
    assert wanted == constraints().keys()


def test_the_environment_of_the_rules_has_the_tested_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = yaml.safe_load((ROOT / "envs" / "privimage.yaml").read_text(encoding="utf-8"))["dependencies"]
    pinned = dict(line.split("==") for line in next(part for part in parts if isinstance(part, dict))["pip"])
    assert pinned == {name: constraints()[name] for name in requirements(project["dependencies"])}
