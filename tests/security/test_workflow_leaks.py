"""Leaks put into the rules' own text are found: on the graph, in commands, in what rules tell besides."""

import pytest
from checkout import TOY, copy_project, dry_run
from leaks import crossings, leaks, loose

EVERYTHING = ("--forceall", "--printshellcmds", *TOY, "all.yaml")
TRAIN = "rules.preprocess_sensitive.output.train"
LEAKS = {  # name: (the rule it is put into, its file, what is replaced, by what)
    "the selection reads sensitive images": (
        "select", "private.smk", "        query=query_of,\n    output:\n        subset=",
        f"        query=query_of,\n        images={TRAIN},\n    output:\n        subset=",
    ),
    "sampling is told of them by a parameter": (
        "sample", "private.smk",
        "        settings=sampling,\n",
        '        settings=lambda w: f"results/{w.dataset}/internal/train.h5",\n',
    ),
    "pretraining is told of them by its command's text": (
        "pretrain", "private.smk", '" --public {input.public:q} --subset',
        '" --start results/{wildcards.dataset}/internal/train.h5 --public {input.public:q} --subset',
    ),
    "the released report reads what the set holds": (
        "report", "report.smk", "        cells=cell_files(internal=False),\n        queries=queries,\n",
        "        cells=cell_files(internal=False),\n        queries=queries,\n"
        '        table="results/{dataset}/internal/contents.json",\n',
    ),
    "the release folder is told of the odometer": (
        "release", "release.smk", '" --folder {params.folder:q} 2>&1',
        '" --odometer state/{wildcards.dataset}/odometer.jsonl --folder {params.folder:q} 2>&1',
    ),
    "the query writes its counts beside its result": (
        "query", "private.smk", 'histogram="results/{dataset}/query/{query}.json",',
        'histogram="results/{dataset}/query/{query}.json",\n        counts="results/{dataset}/query/{query}.txt",',
    ),
    "fine-tuning writes norms of gradients beside the model": (
        "finetune", "private.smk", 'curve=f"results/{{dataset}}/internal/{CELL}/training.csv"',
        'curve=f"results/{{dataset}}/internal/{CELL}/training.csv",\n'
        '        norms=f"results/{{dataset}}/{CELL}/norms.csv"',
    ),
    "a second program in a command copies the images": (
        "preprocess_sensitive", "private.smk", '--sheet {output.sheet:q} 2>&1',
        '--sheet {output.sheet:q} && cp {output.train} results/{wildcards.dataset}.h5 2>&1',
    ),
    "what reads the source keeps its log outside": (
        "shard_sensitive", "private.smk", '"results/{dataset}/internal/logs/shard/',
        '"results/{dataset}/logs/shard/',
    ),
    "running times of an evaluation leave": (
        "features_real", "quality.smk", '"results/{dataset}/internal/benchmarks/features/',
        '"results/{dataset}/benchmarks/features/',
    ),
    "the owner's table is written outside": (
        "report_internal", "report.smk", '"results/{dataset}/internal/summary.csv",',
        '"results/{dataset}/summary.csv",',
    ),
    "an evaluation writes where nobody looks": (
        "membership", "attacks.smk", '" --compute {resources.compute:q} --result',
        '" --copy /tmp/losses.json --compute {resources.compute:q} --result',
    ),
    "a copy of a rule reads the source and writes outside": (
        "leak", "quality.smk", "rule quality:",
        "use rule shard_sensitive as leak with:\n    output:\n"
        '        shard="results/{dataset}/leak/{shard}-of-{num_shards}.shard",\n\n\nrule quality:',
    ),
    "a rule without a command copies them": (
        "hidden", "attacks.smk", "rule semantics:",
        f"rule hidden:\n    input:\n        {TRAIN},\n    output:\n"
        '        "results/{dataset}/internal/hidden.h5",\n    run:\n'
        '        shell("cp {input} {output}; cp {input} /tmp")\n\n\nrule semantics:',
    ),
}  # fmt: skip
TARGETS = {"leak": "results/digits/leak/0-of-1.shard", "hidden": "results/digits/internal/hidden.h5"}


def jobs_with(folder, names):
    """The jobs of the whole workflow, once these leaks were put into a copy of it."""
    run = copy_project(folder)
    (run / "all.yaml").write_text("run: {methods: [privimage, random, pdp, scratch]}\n")
    for rule, file, old, new in (LEAKS[name] for name in names):
        path = run / "workflow/rules" / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        start = max(text.find(f"rule {rule}:"), 0)
        path.write_text(text[:start] + text[start:].replace(old, new, 1))
    targets = [TARGETS[LEAKS[name][0]] for name in names if LEAKS[name][0] in TARGETS]
    return dry_run(run, *EVERYTHING, *(["--", "all", *targets] if targets else []))


def test_every_leak_is_found_at_its_rule_and_no_other_rule_is_blamed(tmp_path):
    jobs = jobs_with(tmp_path, LEAKS)
    found = crossings(jobs) | {rule for rule, _ in loose(jobs)}
    assert found == {rule for rule, *_ in LEAKS.values()}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAKS)
def test_each_leak_alone_is_found(tmp_path, name):
    jobs = jobs_with(tmp_path, [name])
    assert {rule for rule, _ in loose(jobs)} | crossings(jobs) == {LEAKS[name][0]}
    assert leaks(jobs) or loose(jobs)
    assert bool(leaks(jobs)) == bool(crossings(jobs))
