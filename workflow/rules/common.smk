# What all rules share: the checked configuration, paths, and settings as text.

import os
import re
import sys
from itertools import product

from snakemake.exceptions import WorkflowError

from privimage.config import canonical, epsilon_label, load, stage_version
from privimage.errors import UserError

# Rules run the Python that runs Snakemake, also when no environment is activated.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
shell.prefix("umask 077; ")

try:
    CONFIG = load(config)
except UserError as error:
    raise WorkflowError(f"config: {error}") from None
for warning in CONFIG.warnings:
    print(f"warning: {warning}", file=sys.stderr)


wildcard_constraints:
    dataset="|".join(map(re.escape, CONFIG.datasets)),
    public="|".join(map(re.escape, CONFIG.publics)),
    method="|".join(map(re.escape, CONFIG.methods)),
    query="|".join(map(re.escape, CONFIG.queries)) or "none",
    epsilon="|".join(re.escape(epsilon_label(e)) for e in CONFIG.run.epsilons),
    seed=r"\d+",


CELL = "{method}/seed{seed}/eps{epsilon}"


def settings(stage):
    """A function of wildcards: the stage's complete settings for the row, as canonical JSON."""

    def of(wildcards):
        row = {name: wildcards[name] for name in ("dataset", "public") if name in wildcards.keys()}
        return canonical(CONFIG.stage(stage, **row))

    return of


def declared(wildcards):
    return canonical(CONFIG.declared(wildcards.dataset))


def public_of(name):
    """A function of wildcards: a file of the public set that the data set's row names."""
    return lambda wildcards: f"results/public/{CONFIG.datasets[wildcards.dataset].public}/{name}"


def query_of(wildcards):
    """The noisy query that the method reads and pays for; nothing for the others."""
    query = CONFIG.methods[wildcards.method].query
    return [f"results/{wildcards.dataset}/query/{query}.json"] if query else []


def query_flag(wildcards, input):
    return f"--query {input.query}" if input.query else ""
