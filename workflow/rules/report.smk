# The two editions of the report. `snakemake --report` shows them with paths and settings: it is internal too.


report: "../report/workflow.rst"


rule report:
    input:
        cells=cell_files(internal=False),
        queries=queries,
        statements=rules.statements.output.statements,
    output:
        html=report(
            "results/{dataset}/report.html",
            caption="../report/release.rst",
            category="Release edition",
            labels={"data set": "{dataset}", "file": "report"},
        ),
    log:
        "results/{dataset}/internal/logs/report/release.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/report/release.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        gpu=0,
    params:
        declared=declared,
        cells=cells_flag(internal=False),
        queries=lambda wildcards, input: canonical(list(input.queries)),
        version=stage_version("report"),
    shell:
        "python -m privimage.report --edition release --dataset {wildcards.dataset:q}"
        " --declared {params.declared:q} --cells {params.cells:q} --queries {params.queries:q}"
        " --statements {input.statements:q} --html {output.html:q} 2>&1 | tee {log:q}"


rule report_internal:
    input:
        cells=cell_files(internal=True),
        queries=queries,
        statements=rules.statements.output.statements,
        real_train=rules.preprocess_sensitive.output.train,
        real_test=rules.preprocess_sensitive.output.holdout,
        real_accuracy=real_accuracies,
    output:
        html=report(
            "results/{dataset}/internal/report.html",
            caption="../report/internal.rst",
            category="Internal: do not publish",
            labels={"data set": "{dataset}", "file": "report"},
        ),
        summary=report(
            "results/{dataset}/internal/summary.csv",
            caption="../report/summary.rst",
            category="Internal: do not publish",
            labels={"data set": "{dataset}", "file": "summary"},
        ),
    log:
        "results/{dataset}/internal/logs/report/internal.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/report/internal.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        gpu=0,
    params:
        declared=declared,
        cells=cells_flag(internal=True),
        queries=lambda wildcards, input: canonical(list(input.queries)),
        real_accuracy=lambda wildcards, input: canonical(list(input.real_accuracy)),
        odometer=lambda wildcards: f"{CONFIG.state_dir}/{wildcards.dataset}/odometer.jsonl",
        benchmarks=benchmarks,
        version=stage_version("report"),
    shell:
        "python -m privimage.report --edition internal --dataset {wildcards.dataset:q}"
        " --declared {params.declared:q} --cells {params.cells:q} --queries {params.queries:q}"
        " --real-train {input.real_train:q} --real-test {input.real_test:q}"
        " --real-accuracy {params.real_accuracy:q} --benchmarks {params.benchmarks:q}"
        " --odometer {params.odometer:q} --statements {input.statements:q}"
        " --html {output.html:q} --summary {output.summary:q} 2>&1 | tee {log:q}"
