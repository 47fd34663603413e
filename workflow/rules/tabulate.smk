# Many releases as one table: the run's, an ablation's, and ours beside the published numbers. Internal, not private.


def tabulated(dataset, releases):
    """One entry a release: its coordinates, its measurements, and where the stages that made it left their times.

    Of accuracy and quality alone: a study waits for no attack, no release folder and no report.
    """
    row = CONFIG.datasets[dataset]
    inside = f"results/{dataset}/internal"
    entries = []
    for extra, method, seed, epsilon in releases:
        epsilon = epsilon_label(epsilon)
        cell, notes = f"{method}/seed{seed}/eps{epsilon}", f"{inside}/benchmarks"
        parts = [
            f"{notes}/sample_part/{method}-seed{seed}-eps{epsilon}/{shard}.tsv"
            for shard in names_of_shards(row.sample.num_shards)
            if row.sample.num_shards > 1
        ]
        entry = {
            **{"method": method, "seed": seed, "epsilon": float(epsilon), **extra},
            "privacy": f"results/{dataset}/{cell}/privacy.json",
            "quality": [f"{inside}/{cell}/quality/{name}.json" for name in row.quality.networks],
            "seconds": {
                "pretrain": [f"{notes}/pretrain/{method}-seed{seed}.tsv"],
                "finetune": [f"{notes}/finetune/{method}-seed{seed}-eps{epsilon}.tsv"],
                "sample": [*parts, f"{notes}/sample/{method}-seed{seed}-eps{epsilon}.tsv"],
            },
        }
        if len(row.class_names) > 1:
            entry["accuracy"] = f"{inside}/{cell}/accuracy.json"
        entries.append(entry)
    return entries


def run_of(wildcards):
    return tabulated(wildcards.dataset, [({}, *release) for release in CONFIG.run.releases()])


def ablation_of(wildcards):
    found = ablations.points(CONFIG, wildcards.dataset, wildcards.ablation)
    return tabulated(wildcards.dataset, [({"value": p.value}, p.method, p.seed, p.epsilon) for p in found])


def files_of(entries):
    """A function of wildcards: the files that the entries name, but for times."""
    return lambda w: [
        path
        for entry in entries(w)
        for path in (entry["privacy"], *entry["quality"], *([entry["accuracy"]] if "accuracy" in entry else []))
    ]


rule tabulate_run:
    input:
        cells=files_of(run_of),
    output:
        table="results/{dataset}/internal/table.csv",
    log:
        "results/{dataset}/internal/logs/tabulate/run.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/tabulate/run.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
        gpu=0,
    params:
        cells=lambda wildcards: canonical(run_of(wildcards)),
        version=stage_version("tabulate"),
    shell:
        "python -m privimage.tabulate --dataset {wildcards.dataset:q} --cells {params.cells:q}"
        " --table {output.table:q} 2>&1 | tee {log:q}"


rule tabulate_ablation:
    input:
        cells=files_of(ablation_of),
    output:
        table="results/{dataset}/internal/ablation/{ablation}.csv",
        figure="results/{dataset}/internal/ablation/{ablation}.png",
    log:
        "results/{dataset}/internal/logs/tabulate/ablation/{ablation}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/tabulate/ablation/{ablation}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
        gpu=0,
    params:
        cells=lambda wildcards: canonical(ablation_of(wildcards)),
        setting=lambda wildcards: CONFIG.ablations[wildcards.ablation].setting,
        version=stage_version("tabulate"),
    shell:
        "python -m privimage.tabulate --dataset {wildcards.dataset:q} --cells {params.cells:q}"
        " --setting {params.setting:q} --table {output.table:q} --figure {output.figure:q} 2>&1 | tee {log:q}"


rule tabulate_paper:
    input:
        tables=[
            rules.tabulate_run.output.table,
            *[f"results/{{dataset}}/internal/ablation/{name}.csv" for name in CONFIG.run.ablations or ()],
        ],
        published="config/published.csv",
    output:
        paper="results/{dataset}/internal/paper.csv",
    log:
        "results/{dataset}/internal/logs/tabulate/paper.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/tabulate/paper.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
        gpu=0,
    params:
        version=stage_version("tabulate"),
    shell:
        "python -m privimage.tabulate --dataset {wildcards.dataset:q} --tables {input.tables:q}"
        " --published {input.published:q} --paper {output.paper:q} 2>&1 | tee {log:q}"
