# What all rules share: the checked configuration, paths, and settings as text.
import os
import re
import sys
from functools import cache

from privimage import ablations
from privimage.config import canonical, load, stage_version
from privimage.errors import UserError
from privimage.generators import GENERATORS
from privimage.includes import included
from privimage.rows import epsilon_label
from privimage.schema import plain
from privimage.stopping import this_process

# A prefix replaces Snakemake's own strictness. The trap has the shell wait for a stage that was told to stop and saves.
shell.prefix("set -euo pipefail; umask 077; trap : TERM INT; ")
try:
    for included_file in included(config, workflow.basedir):  # merged under the command line's files, which stay on top
        workflow.configfile(included_file)
    CONFIG = load(config)
except UserError as error:
    raise SystemExit(f"error: {error}") from None  # a WorkflowError would bring three lines of traceback along
# Rules run the Python that runs Snakemake, also when no environment is activated, say how far they are, and end with it.
PATH = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
os.environ.update(PATH=PATH, PRIVIMAGE_STATUS=f"{CONFIG.state_dir}/status", PRIVIMAGE_DRIVER=this_process())
if workflow.is_main_process:  # its stages share this machine's GPUs; a scheduler gives its jobs theirs
    os.environ.update(PRIVIMAGE_GPUS="shared")
elif workflow.remote_exec:
    os.environ.update(PRIVIMAGE_GPUS="given")
if workflow.storage_settings.default_storage_provider and not Path(CONFIG.state_dir).is_absolute():
    raise SystemExit(
        f"error: state_dir is {str(CONFIG.state_dir)!r}; where results are copied to and from a storage, a job's own folder"
        " is gone after it, and with it what was spent: set an absolute path that all jobs see."
    )
PROXIES = sorted({row.proxy for row in CONFIG.datasets.values() if row.proxy})
PROXIED = [name for name in CONFIG.run.datasets if CONFIG.datasets[name].proxy in CONFIG.run.datasets]
PICKED = [name for name in CONFIG.run.datasets if name in PROXIES]
for warning in CONFIG.warnings:
    print(f"warning: {warning}", file=sys.stderr)


wildcard_constraints:
    dataset="|".join(map(re.escape, CONFIG.datasets)),
    public="|".join(map(re.escape, CONFIG.publics)),
    method="|".join(map(re.escape, CONFIG.methods)),
    query="|".join(map(re.escape, CONFIG.queries)),
    network="|".join(map(re.escape, CONFIG.networks)),
    num_shards=r"\d+",
    epsilon="|".join(re.escape(epsilon_label(e)) for e in ablations.epsilons(CONFIG)),
    ablation="|".join(map(re.escape, CONFIG.run.ablations or ())) or "(?!)",  # none
    seed="|".join(map(str, CONFIG.run.seeds)),


def settings(stage):
    """A function of wildcards: the stage's complete settings for the row, as canonical JSON."""
    return lambda row: canonical(CONFIG.stage(stage, dataset=row.get("dataset"), public=row.get("public")))


@cache
def stage_of(stage, dataset, method):
    """The stage's complete settings for the method on the data set."""
    return CONFIG.of_method(stage, dataset, method)


def of_method(stage):
    """A function of wildcards: the stage's complete settings for the method on the data set, as canonical JSON."""
    return lambda wildcards: canonical(plain(stage_of(stage, wildcards.dataset, wildcards.method)))


def generator_of(wildcards):
    return CONFIG.methods[wildcards.method].generator


def generator_version(wildcards):
    """A parameter, so that what a generator made is made anew when its version is raised."""
    return GENERATORS[generator_of(wildcards)].VERSION


def some(datasets, what):
    """``datasets``, of which a target needs one at least."""
    if not datasets:
        raise SystemExit(
            f"error: this target needs {what} in `run.datasets`, got {', '.join(CONFIG.run.datasets)}; "
            "config/proxy.yaml and config/levers.yaml are examples."
        )
    return datasets


def declared(wildcards):
    """The declared constants, as JSON that ends no script: Snakemake's own report writes parameters into one."""
    return canonical(CONFIG.declared(wildcards.dataset)).replace("<", "\\u003c")


def constant(name):
    """A function of wildcards: one of the declared constants, as canonical JSON, for stages that need no more."""
    return lambda wildcards: canonical(CONFIG.declared(wildcards.dataset)[name])


def budget(wildcards):
    """The data set's budget, or `none`: a resource, since a changed resource, unlike a parameter, reruns nothing."""
    return str(CONFIG.datasets[wildcards.dataset].budget).lower()


def public_of(name):
    """A function of wildcards: a file of the public set that the data set's row names."""
    return lambda wildcards: f"results/public/{CONFIG.datasets[wildcards.dataset].public}/{name}"


def owner_only():
    """What was computed from sensitive images, and what Snakemake notes of it, is for its owner alone."""
    try:
        for internal in (Path("results", dataset, "internal") for dataset in CONFIG.run.datasets):
            internal.mkdir(parents=True, exist_ok=True)
            for path in (Path(".snakemake"), internal, *internal.rglob("*")):
                path.chmod(0o700 if path.is_dir() else 0o600)
    except OSError as error:
        raise SystemExit(
            f"error: {error.filename} cannot be kept for its owner alone ({error.strerror}); mend that and start again."
        ) from None
