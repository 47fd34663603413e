# Many releases as one table: the run's, an ablation's, and ours beside the published numbers. Internal, not private.


rule tabulate_run:
    input:
        cells=files_of(run_of),
    output:
        table="results/{dataset}/internal/table.csv",
        differences="results/{dataset}/internal/differences.csv",
        figure="results/{dataset}/internal/differences.png",
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
        " --table {output.table:q} --differences {output.differences:q}"
        " --differences-figure {output.figure:q} 2>&1 | tee {log:q}"


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
        published=Path(workflow.basedir) / "config" / "published.csv",
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


# Only what is public may be chosen by: the proxies of other sets.
rule pick:
    input:
        table=rules.tabulate_run.output.table,
    output:
        picked="results/{dataset}/internal/picked.yaml",
    log:
        "results/{dataset}/internal/logs/pick/picked.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/pick/picked.tsv"
    wildcard_constraints:
        dataset="|".join(map(re.escape, PROXIES)) or "(?!)",  # none
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
        gpu=0,
    params:
        version=stage_version("pick"),
    shell:
        "python -m privimage.pick --dataset {wildcards.dataset:q} --table {input.table:q}"
        " --picked {output.picked:q} 2>&1 | tee {log:q}"


rule pick_in_hindsight:
    input:
        table=lambda wildcards: f"results/{CONFIG.datasets[wildcards.dataset].proxy}/internal/table.csv",
        real=rules.tabulate_run.output.table,
    output:
        ranking="results/{dataset}/internal/proxy.csv",
        figure="results/{dataset}/internal/proxy.png",
    log:
        "results/{dataset}/internal/logs/pick/hindsight.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/pick/hindsight.tsv"
    wildcard_constraints:
        dataset="|".join(map(re.escape, PROXIED)) or "(?!)",  # none
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
        gpu=0,
    params:
        version=stage_version("pick"),
    shell:
        "python -m privimage.pick --dataset {wildcards.dataset:q} --table {input.table:q} --real {input.real:q}"
        " --ranking {output.ranking:q} --figure {output.figure:q} 2>&1 | tee {log:q}"
