# How useful synthetic images are to classifiers, tested on real ones: internal, not private.

from shlex import quote


def chosen_by(wildcards):
    """The sensitive images by which epochs are chosen with noise, and the statement that pays for it."""
    if not CONFIG.validation_epsilons(wildcards.dataset):
        return []
    folder = f"results/{wildcards.dataset}"
    return [f"{folder}/internal/train.h5", f"{folder}/{CELL}/privacy.json".format(**wildcards)]


def validation_flags(wildcards, input):
    if not input.chosen_by:
        return ""
    sensitive, privacy = input.chosen_by
    return (
        f"--sensitive {quote(sensitive)} --privacy {quote(privacy)} --dataset {quote(wildcards.dataset)}"
        f" --method {quote(wildcards.method)} --epsilon {wildcards.epsilon}"
        f" --declared {quote(declared(wildcards))} --state-dir {quote(CONFIG.state_dir)}"
    )


rule accuracy:
    input:
        train=rules.sample.output.images,
        test=rules.preprocess_sensitive.output.holdout,
        chosen_by=chosen_by,
    output:
        result=f"results/{{dataset}}/internal/{CELL}/accuracy.json",
    log:
        "results/{dataset}/internal/logs/accuracy/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/accuracy/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=1440,
        gpu=1,
        budget=budget,
    params:
        settings=settings("accuracy"),
        validation=validation_flags,
        version=stage_version("accuracy"),
    shell:
        "python -m privimage.accuracy --train {input.train:q} --test {input.test:q} --seed {wildcards.seed}"
        " --settings {params.settings:q} {params.validation} --budget {resources.budget}"
        " --result {output.result:q} 2>&1 | tee {log:q}"


use rule accuracy as accuracy_real with:
    input:
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
        chosen_by=[],
    output:
        result="results/{dataset}/internal/real/seed{seed}/accuracy.json",
    log:
        "results/{dataset}/internal/logs/accuracy/real-seed{seed}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/accuracy/real-seed{seed}.tsv"
