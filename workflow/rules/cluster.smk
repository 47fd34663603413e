# What a scheduler is asked before anything is submitted to it.

import shlex
import shutil
import subprocess

SLURM_FLAGS = {  # resource -> what Slurm calls it
    "slurm_partition": "--partition",
    "slurm_account": "--account",
    "qos": "--qos",
    "constraint": "--constraint",
    "runtime": "--time",
    "mem_mb": "--mem",
    "gpu": "--gpus",
    "gres": "--gres",
    "nodes": "--nodes",
}


def scheduler_takes_jobs():
    """End with one sentence where the executor's command is not there, or where Slurm would not run some job."""
    executor, settings = workflow.executor_plugin.name, workflow.executor_settings
    if not workflow.local_exec:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # of this machine; jobs would take it for their scheduler's word
    submit = {"slurm": "sbatch", "cluster-generic": getattr(settings, "submit_cmd", None)}.get(executor)
    command = shlex.split(submit)[0] if submit else None
    if command and not shutil.which(command):
        raise SystemExit(
            f"error: `--executor {executor}` submits jobs by {command}, which is not on this machine's PATH;"
            " start Snakemake on a login node of the cluster, or without this profile to run here."
        )
    for words, name in sorted(asked_of_slurm().items()) if executor == "slurm" else ():
        why = refused_by_slurm(words)
        if why:
            raise SystemExit(
                f"error: Slurm does not run jobs of the rule {name} ({why}), which ask for {' '.join(words)};"
                " change in the profile what they ask for, or mend what it says."
            )


def refused_by_slurm(words):
    """Why Slurm refuses a job that asks for this, or would let it wait for ever; nothing if it takes it."""
    told = subprocess.run(["sbatch", "--test-only", *words, "--wrap", "true"], capture_output=True, text=True)
    if "node configuration is not available" in told.stderr and some_node_is_away():
        return ""  # it may be what those have: the job waits for them
    if told.returncode:
        return (told.stderr.strip().splitlines() or ["it does not say why"])[-1]
    partition = re.search(r"in partition (\S+)", told.stderr)
    if not partition:
        return ""
    limit = subprocess.run(["sinfo", "-h", "-o", "%l", "-p", partition[1]], capture_output=True, text=True).stdout
    parts = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):\d+", limit.strip())  # nothing where it is infinite
    days, hours, minutes = map(int, parts.groups("0")) if parts else (sys.maxsize, 0, 0)
    asked = max((int(word.partition("=")[2]) for word in words if word.startswith("--time=")), default=0)
    given = 60 * (24 * days + hours) + minutes
    return f"the partition {partition[1]} gives {given} minutes at most" if asked > given else ""


def some_node_is_away():
    """Whether a node is drained, down or the like: then a job is refused in a trial and taken when it is submitted."""
    told = subprocess.run(["sinfo", "-h", "-N", "-o", "%T"], capture_output=True, text=True).stdout.split()
    return any(not re.match("idle|mixed|allocated|completing|planned|reserved", state) for state in told)


def asked_of_slurm():
    """What the run's jobs ask of Slurm, each with the name of a rule that asks for it."""
    asked = {}
    for job in workflow.dag.needrun_jobs():
        if not job.is_local:
            given = {flag: job.resources.get(name) for name, flag in SLURM_FLAGS.items()}
            words = tuple(f"{flag}={value}" for flag, value in given.items() if value)
            asked[words] = job.rule.name
    return asked
