# What a data owner hands out: one folder a release. Reads what may leave, and nothing else.


rule statements:
    input:
        privacy=lambda wildcards: [row["privacy"] for row in releases(wildcards)],
    output:
        statements="results/{dataset}/statements.json",
    log:
        "results/{dataset}/internal/logs/statements.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/statements.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
        gpu=0,
    params:
        cells=lambda wildcards: canonical(releases(wildcards)),
        version=stage_version("statements"),
    shell:
        "python -m privimage.statements --cells {params.cells:q} --statements {output.statements:q} 2>&1 | tee {log:q}"


rule release:
    input:
        images=rules.sample.output.images,
        weights=rules.finetune.output.weights,
        privacy=rules.finetune.output.privacy,
        subset=of_pretraining("subset.json"),
        query=query_of,
        statements=rules.statements.output.statements,
    output:
        # And data/*.parquet, as many as the images fill; SHA256SUMS, which is written last, lists them.
        card=f"results/{{dataset}}/{CELL}/release/README.md",
        privacy=f"results/{{dataset}}/{CELL}/release/privacy.json",
        images=f"results/{{dataset}}/{CELL}/release/images.h5",
        images_sum=f"results/{{dataset}}/{CELL}/release/images.h5.sha256",
        archive=f"results/{{dataset}}/{CELL}/release/images.zip",
        classes=f"results/{{dataset}}/{CELL}/release/classes.json",
        grid=f"results/{{dataset}}/{CELL}/release/samples.png",
        weights=f"results/{{dataset}}/{CELL}/release/model.safetensors",
        sums=f"results/{{dataset}}/{CELL}/release/SHA256SUMS",
    log:
        "results/{dataset}/internal/logs/release/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/release/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=0,
    params:
        settings=settings("release"),
        declared=declared,
        query=query_flag,
        folder=lambda wildcards, output: str(Path(output.sums).parent),
        version=stage_version("release"),
    shell:
        "python -m privimage.release --dataset {wildcards.dataset:q} --method {wildcards.method:q}"
        " --seed {wildcards.seed} --declared {params.declared:q} --settings {params.settings:q}"
        " --images {input.images:q} --weights {input.weights:q} --privacy {input.privacy:q}"
        " --subset {input.subset:q} {params.query} --statements {input.statements:q}"
        " --folder {params.folder:q} 2>&1 | tee {log:q}"
