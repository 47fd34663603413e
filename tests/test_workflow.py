"""The workflow as a graph: what reruns when something changes, what no path may join, and what a user is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from checkout import ROOT, TOY, Job, copy_project, copy_run, dry_run, project_files, snakemake
from leaks import PRIVATE, is_internal, leaks, loose

from privimage.data.published import INCEPTION
from privimage.errors import UserError
from privimage.launch import TOGETHER
from privimage.networks import cache_folder

METHODS = ("privimage", "pdp")
INCEPTION_TOO = "quality: {networks: [classifier, inception]}"
REPORTS = {"report", "report_internal"}
ALL_METHODS = "run: {methods: [privimage, random, pdp, scratch]}"


def jobs_of(*stages: str, methods=METHODS, seed="seed0", epsilon="eps1") -> set[str]:
    """The names of the stages' jobs for each method; audited is the first method with the first seed alone."""
    shared = {"select", "pretrain", "semantics"}  # by all epsilons
    jobs = [(s, m) for s in stages for m in methods if s != "audit" or (m, seed) == (METHODS[0], "seed0")]
    return {f"{s} {m} {seed}" + (f" {epsilon}" if s not in shared else "") for s, m in jobs}


OF_IMAGES = ("quality", "accuracy", "memorisation", "release")
CELL = ("finetune", "membership", "audit", "sample", *OF_IMAGES)
UNAUDITED = tuple(stage for stage in CELL if stage != "audit")  # of a release that is not the one to be audited
CARDS = jobs_of("release")  # each names what the run's other releases cost
SEMANTICS = {"semantics privimage seed0"}  # pdp selects no classes
MODEL = jobs_of("select", "pretrain", *CELL) | SEMANTICS
AFTER_QUERY = jobs_of("select", "semantics", "pretrain", *CELL, methods=["privimage"]) | CARDS | REPORTS
REAL = {"accuracy_real seed0"}
SEEN = {"features_real"}

PUBLIC_IMAGES = {"shard_public", "preprocess_public"}
SENSITIVE_IMAGES = {"shard_sensitive", "preprocess_sensitive"}

# What is changed (on top of the toy configuration), and the jobs that this costs: the stage and what follows from it.
CHANGES: dict[str, tuple[str, set[str]]] = {
    "preprocess": (
        "preprocess: {test_fraction: 0.3}",
        PUBLIC_IMAGES | SENSITIVE_IMAGES | {"classifier", "query"} | MODEL | REAL | SEEN | REPORTS,
    ),
    "preprocess, where the public row has its own value": (
        "preprocess: {filter: lanczos}",
        SENSITIVE_IMAGES | AFTER_QUERY | {"query"} | jobs_of(*CELL) | REAL | SEEN,
    ),
    "what to do with bad images": (
        "datasets: {digits: {preprocess: {on_bad_image: skip}}}",
        SENSITIVE_IMAGES | AFTER_QUERY | {"query"} | jobs_of(*CELL) | REAL | SEEN,
    ),
    "classifier": (
        "classifier: {momentum: 0.8}",
        {"classifier", "query"} | AFTER_QUERY | jobs_of("quality", "memorisation") | SEEN,
    ),
    "queries": ("queries: {default: {noise_multiplier: 11}}", {"query"} | AFTER_QUERY),
    "select": ("datasets: {digits: {select: {classes_per_label: 2}}}", MODEL | REPORTS),
    "pretrain": ("pretrain: {label_dropout: 0.2}", jobs_of("pretrain", *CELL) | REPORTS),
    "finetune": ("finetune: {clip_norm: 0.002}", jobs_of(*CELL) | REPORTS),
    "sample": ("sample: {rho: 6}", jobs_of("sample", *OF_IMAGES) | REPORTS),
    "what images are pushed away from": (
        "datasets: {digits: {sample: {guidance: classifier-free}}}",
        jobs_of("sample", *OF_IMAGES) | REPORTS,
    ),
    "quality": ("quality: {reference_split: test}", jobs_of("quality") | {"report_internal"}),
    "reference images": ("quality: {num_reference: 50}", SEEN | jobs_of("quality") | {"report_internal"}),
    "a network more": (
        INCEPTION_TOO,
        {"download_inception"} | SEEN | jobs_of("quality") | {"report_internal"},
    ),
    "accuracy": ("accuracy: {classifiers: [logistic]}", jobs_of("accuracy") | REAL | {"report_internal"}),
    "accuracy, by another protocol without noise": (
        "accuracy: {protocol: synthetic-validation, repetitions: 2}",
        jobs_of("accuracy") | REAL | {"report_internal"},
    ),
    "accuracy, by a protocol that releases pay for": (
        "accuracy: {protocol: noisy-validation}",
        jobs_of(*CELL) | REAL | REPORTS,
    ),
    "semantics": ("semantics: {word_vectors: tests/toy.yaml}", SEMANTICS | {"report_internal"}),
    "memorisation": ("memorisation: {feature_network: pixels}", jobs_of("memorisation") | {"report_internal"}),
    "membership": ("membership: {sigmas: [0.3]}", jobs_of("membership") | {"report_internal"}),
    "audit": ("datasets: {digits: {audit: {num_guesses: 4}}}", jobs_of("audit") | {"report_internal"}),
    "no audit": ("datasets: {digits: {audit: {num_canaries: 0}}}", {"report_internal"}),
    "what the card says": ("release: {license: cc0-1.0}", CARDS),
    "how stages compute": ("compute: {precision: bfloat16, compile: true, microbatch_size: 3}", set()),
    "an epsilon more": ("run: {epsilons: [1, 10]}", jobs_of(*UNAUDITED, epsilon="eps10") | CARDS | REPORTS),
    "a seed more": (
        "run: {seeds: [0, 1]}",
        jobs_of("select", "pretrain", *CELL, seed="seed1")
        | {"semantics privimage seed1", "accuracy_real seed1"}
        | CARDS
        | REPORTS,
    ),
    "a method more": (
        "run: {methods: [privimage, pdp, scratch]}",
        jobs_of("select", "pretrain", *CELL, methods=["scratch"]) | CARDS | REPORTS,
    ),
    "delta": ("datasets: {digits: {delta: 4.0e-5}}", jobs_of(*CELL) | REPORTS),
    "images of one person": ("datasets: {digits: {images_per_unit: 2}}", jobs_of(*CELL) | REPORTS),
    "a budget": ("datasets: {digits: {budget: 50}}", set()),
    "the same epsilon, spelt 1.0": ("run: {epsilons: [1.0]}", set()),
}
VERSIONS = {  # raising VERSION of the module costs the same as changing its settings
    "shard": CHANGES["preprocess"][1],
    "query": CHANGES["queries"][1],
    "finetune": CHANGES["finetune"][1],
    "report": REPORTS,
}
STAGES = (
    "download", "shard", "preprocess", "classifier", "query", "select", "pretrain", "finetune", "sample", "features",
    "quality", "accuracy", "semantics", "memorisation", "membership", "audit", "statements", "release", "report",
    "tabulate", "pick",
)  # fmt: skip


def overlay(folder: Path, text: str) -> tuple[str, ...]:
    """Arguments for the toy configuration with the text merged over it."""
    path = folder / f"overlay{len(list(folder.iterdir()))}.yaml"
    path.write_text(text)
    return (*TOY, str(path))


def edit(path: Path, old: str, new: str) -> None:
    """The file has ``new`` where it had ``old``."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def touched(chain, tmp_path_factory) -> Path:
    """A finished run in which every module got a comment and the configuration a new date."""
    run = copy_run(chain, tmp_path_factory.mktemp("touched"))
    for module in (run / "privimage").rglob("*.py"):
        module.write_text(module.read_text() + "# a comment\n")
    for name in ("config/config.yaml", "tests/toy.yaml"):
        (run / name).touch()
    return run


def raised(chain: Path, folder: Path, stage: str) -> Path:
    """A finished run in which the stage's module has a higher VERSION."""
    run = copy_run(chain, folder)
    text = (run / f"privimage/{stage}.py").read_text()
    (run / f"privimage/{stage}.py").write_text(re.sub(r"^VERSION = (\d+)$", r"VERSION = \g<1>000", text, flags=re.M))
    return run


def with_leak(folder: Path) -> Path:
    """A copy of the project with a rule that copies sensitive images out, for the report to read."""
    rules = copy_project(folder) / "workflow/rules/report.smk"
    edit(
        rules, "cells=cell_files(internal=False),", "cells=cell_files(internal=False),\n        leak=rules.leak.output,"
    )
    edit(
        rules,
        "rule report:",
        "rule leak:\n    input:\n        rules.preprocess_sensitive.output.train,\n    output:\n"
        '        "results/{dataset}/leak.json",\n    shell:\n        "cp {input} {output}"\n\n\nrule report:',
    )
    return folder


@pytest.fixture(scope="module")
def plans(chain, fresh, touched, tmp_path_factory) -> dict[str, list[Job]]:
    """The jobs of every dry-run that these tests look at, two at a time."""
    made = tmp_path_factory.mktemp("overlays")
    calls = {name: (chain, *overlay(made, text)) for name, (text, _) in CHANGES.items()}
    for stage in VERSIONS:
        calls[f"VERSION of {stage}"] = (raised(chain, tmp_path_factory.mktemp(stage), stage), *TOY)
    everything = ("--forceall", "--printshellcmds", *overlay(made, ALL_METHODS))
    without_query = overlay(made, "run: {methods: [random, pdp, scratch]}")
    calls |= {
        "touched": (touched, *TOY),
        "-R pretrain": (chain, "-R", "pretrain", *TOY),
        "bare": (fresh,),
        "everything": (fresh, *everything),
        "leak": (with_leak(tmp_path_factory.mktemp("leak")), *everything),
        "without query": (fresh, "--printshellcmds", *without_query),
        "wider": (chain, *TOY, "--set-resources", "finetune:gpu=4", "finetune:nodes=2", "pretrain:processes=8"),
    }
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(calls, pool.map(lambda call: dry_run(*call), calls.values())))


def names(jobs: list[Job]) -> set[str]:
    assert len({job.name for job in jobs}) == len(jobs)
    return {job.name for job in jobs}


def with_statements(jobs: set[str]) -> set[str]:
    """The jobs, and the one that gathers what the fine-tunings among them state."""
    return jobs | {"statements" for job in jobs if job.startswith("finetune ")}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reruns_its_stage_and_what_follows_and_nothing_else(plans, change):
    assert names(plans[change]) == with_statements(CHANGES[change][1])


@pytest.mark.parametrize("stage", VERSIONS)
def test_a_raised_version_reruns_its_stage_and_what_follows(plans, stage):
    assert names(plans[f"VERSION of {stage}"]) == with_statements(VERSIONS[stage])


def test_a_touched_configuration_or_an_edited_comment_reruns_nothing(plans):
    assert names(plans["touched"]) == set()


def test_how_many_gpus_nodes_and_processes_a_stage_gets_reruns_nothing(plans):
    assert names(plans["wider"]) == set()


def test_one_stage_again_and_what_follows(plans):
    assert names(plans["-R pretrain"]) == with_statements(CHANGES["pretrain"][1])


def test_without_a_target_everything_that_the_default_names_is_made(plans):
    made = {path for job in plans["bare"] for path in job.output}
    assert {"results/digits/report.html", "results/digits/internal/report.html"} <= made
    assert {job.wildcards["epsilon"] for job in plans["bare"] if job.rule == "finetune"} == {"1", "10"}


def test_only_methods_that_release_a_query_read_one(plans):
    for job in plans["everything"]:
        if job.rule in ("select", "finetune"):
            reads = "results/digits/query/default.json" in job.input
            assert reads == ("--query" in job.command) == (job.wildcards["method"] == "privimage"), job
            assert job.rule == "select" or reads == ("--releases query finetune" in job.command), job
    assert len([job for job in plans["everything"] if job.rule == "query"]) == 1


def test_methods_without_a_query_need_none(plans):
    for job in plans["without query"]:
        assert job.rule != "query" and "--query " not in job.command
        assert not any("/query/" in path for path in job.input)


def test_a_file_of_word_vectors_is_an_input_so_that_an_edited_one_is_read_again(plans):
    assert [job for job in plans["semantics"] if job.rule == "semantics" and "tests/toy.yaml" in job.input]


def test_what_holds_all_images_at_once_asks_for_the_memory_that_they_take(plans):
    """Ten bytes for each pixel of the larger set: 6,000 synthetic images against 1,437 real ones, of 8 by 8 pixels."""
    memory = {job.rule: job.memory for job in plans["bare"]}
    assert [memory[rule] for rule in ("accuracy", "accuracy_real", "memorisation", "quality")] == [
        *(2000 + 3, 2000 + 3, 4000 + 3, 4000),
    ]


def test_what_a_release_reads_does_not_grow_with_the_number_of_releases(plans):
    """Else a grid's plan takes time with their square."""
    read = {job.name: len(job.input) for job in plans["everything"] if job.rule == "release"}
    assert len(read) == 4 and set(read.values()) == {5, 6}  # images, model, privacy, subset, statements; and a query


def test_the_report_s_times_are_those_of_every_stage_before_it(chain, plans):
    (command,) = [job.command for job in plans["everything"] if job.rule == "report_internal"]
    listed = set(json.loads(re.search(r"--benchmarks '({.*?})'", command).group(1)).values())
    found = {path.relative_to(chain).as_posix() for path in (chain / "results").rglob("benchmarks/**/*.tsv")}
    beside = {
        path for path in found if re.search(r"/benchmarks/(report/|release/|statements)", path)
    }  # its own and the cards', and what takes no time
    assert len(beside) == 5 and found - listed == beside and not beside & listed


def test_nothing_leads_out_of_internal_but_query_and_finetune(plans):
    jobs = plans["everything"]
    assert {job.rule for job in jobs if any(map(is_internal, job.input))} > PRIVATE
    assert leaks(jobs) == set()


def test_private_jobs_release_nothing_but_what_the_ledger_covers(plans):
    out = {j.rule: {Path(p).name for p in j.output if not is_internal(p)} for j in plans["everything"]}
    assert out["query"] == {"default.json"} and out["finetune"] == {"finetuned.safetensors", "privacy.json"}
    assert not any(is_internal(path) for job in plans["everything"] if job.rule in PRIVATE for path in job.output[:2])


def test_a_leak_would_be_found(plans):
    found = leaks(plans["leak"])
    assert {"results/digits/leak.json", "results/digits/report.html"} == found


def test_no_command_carries_anything_past_the_graph(plans):
    """Files may also be handed over as parameters or in a command's text, which are no edges of the graph."""
    assert loose(plans["everything"]) == set()
    assert ("leak", "is no stage") in loose(plans["leak"])


@pytest.mark.parametrize(
    "path",
    [
        "results/public/query/default.json",  # no data set may be called `public`
        "results/digits/internal/seed0/subset.json",  # nor a method `internal`
        "results/digits/privimage/seed0/eps1.0/privacy.json",  # one spelling a number
        "results/digits/privimage/seed00/subset.json",
        "results/digits/query/default.json;id.json",
    ],
)
def test_wildcards_match_only_what_the_configuration_names(fresh, path):
    done = snakemake(fresh, "--dry-run", *TOY, "--", path)
    assert done.returncode and re.search(r"MissingRuleException|No rule to produce", done.stdout), done.stdout


REFUSED = {  # configuration merged over the toy: what the sentence must name
    "a typo": ("run: {epsilon: [1]}", "`run.epsilon`"),
    "epsilon 0": ("run: {epsilons: [0]}", "`run.epsilons.0`"),
    "an unknown method": ("run: {methods: [privimag]}", "`run.methods`"),
    "delta of a whole image": ("datasets: {digits: {delta: 0.001}}", "`datasets.digits.delta`"),
    "delta as text": ("datasets: {digits: {delta: 1e-5}}", "`datasets.digits.delta`"),
    "word vectors that are not there": (
        "semantics: {word_vectors: ~/absent.txt}",
        f"`datasets.digits.semantics.word_vectors` is '{Path.home()}/absent.txt'",
    ),
    "too many votes": ("queries: {default: {top_k: 30}}", "`queries.default.top_k`"),
}


def refusal(folder: Path, *args: str) -> str:
    """The one sentence with which snakemake refuses to start; it took no time worth mentioning."""
    start = time.monotonic()
    done = snakemake(folder, "--cores", "1", *args)
    seconds = time.monotonic() - start
    lines = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    print(f"refused in {seconds:.1f} s: {lines}")
    assert done.returncode and len(lines) == 1 and done.stdout.splitlines()[-1] == lines[0], done.stdout
    assert "Traceback" not in done.stdout and "Error" not in done.stdout and 'File "' not in done.stdout, done.stdout
    assert seconds < 60  # before the graph of jobs is built, whatever else the machine does
    return lines[0]


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_in_the_configuration_is_one_sentence(fresh, tmp_path, mistake):
    text, key = REFUSED[mistake]
    assert key in refusal(fresh, *overlay(tmp_path, text))


def test_a_missing_section_is_one_sentence(tmp_path):
    copy_project(tmp_path)
    edit(tmp_path / "config/config.yaml", "\nquality: {}\n", "\n")
    assert "`quality` is missing" in refusal(tmp_path, *TOY)


def test_an_unwise_delta_is_a_warning(fresh, tmp_path):
    done = snakemake(fresh, "--dry-run", *overlay(tmp_path, "datasets: {digits: {delta: 1.0e-4}}"))
    assert done.returncode == 0 and "warning: `datasets.digits.delta` is 0.0001" in done.stdout


def test_rules_run_the_python_that_runs_snakemake(fresh, tmp_path):
    """Also when no environment is activated and another Python, or none, is on the path."""
    run, tools = copy_project(tmp_path / "run"), tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "sh", "tee", "which"):  # the last for a plugin that looks whether there is a scheduler
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python").write_text("#!/bin/sh\nexit 97\n")
    (tools / "python").chmod(0o755)
    program, target = Path(sys.executable).parent / "snakemake", "results/digits/internal/train.h5"
    done = subprocess.run(
        [program, "--cores", "1", *TOY, "--", target],
        cwd=run,
        env={"PATH": str(tools), "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert (run / target).stat().st_mode & 0o777 == 0o600
    assert (run / "results/digits/internal").stat().st_mode & 0o777 == 0o700


def test_a_stage_that_fails_after_writing_its_outputs_has_failed(tmp_path):
    """A command behind a pipe fails the pipe: half a result never passes as done."""
    run, target = copy_project(tmp_path / "run"), "results/digits/internal/train.h5"
    module = run / "privimage" / "preprocess.py"
    module.write_text(module.read_text() + "    raise SystemExit(3)\n")
    done = snakemake(run, "--cores", "1", *TOY, "--", target)
    assert done.returncode != 0, done.stdout
    assert not (run / target).exists()


def with_inception(chain: Path, folder: Path, made: Path, monkeypatch, told: str) -> tuple[Path, tuple[str, ...]]:
    """A finished run that also looked through Inception's eyes, as far as Snakemake can tell, and its arguments."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    run, with_it = copy_run(chain, folder), overlay(made, INCEPTION_TOO)
    assert dry_run(run, *with_it)
    (run / "data/inception").mkdir(parents=True)
    (run / "data/inception/complete.json").write_text(told)
    done = snakemake(run, "--touch", *with_it)
    for job in dry_run(run, *with_it):  # outputs that are absent cannot be touched
        for path in job.output:
            (run / path).parent.mkdir(parents=True, exist_ok=True)
            (run / path).touch()
    done = snakemake(run, "--touch", *with_it)
    assert done.returncode == 0, done.stdout
    assert dry_run(run, *with_it) == []
    return run, with_it


def arrive(folder: Path) -> None:
    (folder / "cache/privimage").mkdir(parents=True)
    (folder / "cache/privimage" / INCEPTION.name).touch()


@pytest.mark.slow
def test_inceptions_first_arrival_by_download_reruns_nothing(chain, tmp_path, monkeypatch):
    (made := tmp_path / "made").mkdir()
    run, with_it = with_inception(chain, tmp_path, made, monkeypatch, "[]")
    arrive(tmp_path)  # as the download left it
    assert dry_run(run, *with_it) == []


@pytest.mark.slow
def test_inceptions_arrival_after_it_was_missed_makes_what_lacked_it_and_that_once(chain, tmp_path, monkeypatch):
    (made := tmp_path / "made").mkdir()
    run, with_it = with_inception(chain, tmp_path, made, monkeypatch, '{"missing": "offline"}')
    arrive(tmp_path)
    jobs = dry_run(run, *with_it)
    assert {job.rule for job in jobs} == {"download_inception", "features_real", "quality", "report_internal"}
    assert all("inception" in str(job.wildcards) for job in jobs if job.rule != "report_internal")
    (run / "data/inception/arrived.json").write_text("[]")
    assert snakemake(run, "--touch", *with_it).returncode == 0
    assert dry_run(run, *with_it) == []


def test_a_user_without_a_home_is_told_so_and_only_where_inception_is_asked_for(monkeypatch):
    """Snakemake itself needs a cache folder in its present version, so no whole run can show this."""

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(UserError, match="set HOME or XDG_CACHE_HOME"):
        cache_folder()
    assert "cache_folder()" not in (ROOT / "workflow/rules/quality.smk").read_text()  # rules are read in every run


def test_the_linter_has_nothing_to_say(fresh):
    done = snakemake(fresh, "--lint")
    assert done.returncode == 0 and "Congratulations" in done.stdout, done.stdout


def rule_texts() -> dict[str, str]:
    """The text of every rule that is written out (``use rule`` inherits)."""
    text = "".join(path.read_text() + "\n\n" for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    return dict(re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("rule", sorted(rule_texts()))
def test_every_rule_states_what_a_cluster_needs(rule):
    text = rule_texts()[rule]
    for directive in ("output", "log", "benchmark", "conda", "threads", "resources", "params", "shell"):
        assert re.search(rf"^    {directive}:", text, re.M), f"{rule} has no {directive}"
    for resource in ("mem_mb", "runtime", "gpu"):
        assert re.search(rf"^        {resource}=(memory\()?\d+\)?,", text, re.M), f"{rule} has no {resource}"
    stage = rule.split("_")[0]
    assert f'version=stage_version("{stage}"),' in text
    on_gpu = "gpu=1," in text  # then it is started by what assigns GPUs, and processes if the stage allows several
    several = all(f"        {name}=1," in text for name in ("nodes", "processes"))
    assert several == (stage in TOGETHER)
    command = "".join(re.findall(r'^        "(.*)"$', text.partition("    shell:")[2], re.M))
    wide = " --nodes {resources.nodes} --processes {resources.processes}" if several else ""
    start = f"launch --gpus {{resources.gpu}}{wide} -- " if on_gpu else ""
    assert command.startswith(f"python -m privimage.{start}{stage} ")
    assert re.search(r" 2>&1 \| tee \{log:q\}( \|\| \{\{ rm .*; exit 1; \}\})?\"\s*$", text)


def test_every_stage_has_a_rule():
    assert {rule.split("_")[0] for rule in rule_texts()} == set(STAGES)


def test_nobody_lets_half_written_files_pass_as_done():
    flag = "--keep-" + "incomplete"
    users = ("profiles/", "tests/", "Makefile", "README.md", ".ci/")
    files = [path for path in project_files() if str(path).startswith(users)]
    assert len(files) > 10 and not [path for path in files if flag[2:] in (ROOT / path).read_text(errors="ignore")]


def test_the_configuration_is_read_without_torch_in_less_than_a_second():
    code = "import sys, time; import privimage.config; assert 'torch' not in sys.modules; print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
