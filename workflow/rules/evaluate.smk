# What is measured against real images (internal, not private), and the two editions of the report.


rule fid:
    input:
        synthetic=rules.sample.output.images,
        real=lambda wildcards: reference_split(wildcards.dataset),
        classifier=public_of("classifier.safetensors"),
    output:
        result=f"results/{{dataset}}/internal/{CELL}/fid.json",
    log:
        "results/{dataset}/internal/logs/fid/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/fid/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=1,
    params:
        settings=settings("fid"),
        version=stage_version("fid"),
    shell:
        "python -m privimage.fid --synthetic {input.synthetic:q} --real {input.real:q}"
        " --classifier {input.classifier:q} --settings {params.settings:q}"
        " --result {output.result:q} 2>&1 | tee {log:q}"


rule accuracy:
    input:
        train=rules.sample.output.images,
        test=rules.preprocess_sensitive.output.holdout,
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
    params:
        settings=settings("accuracy"),
        version=stage_version("accuracy"),
    shell:
        "python -m privimage.accuracy --train {input.train:q} --test {input.test:q} --seed {wildcards.seed}"
        " --settings {params.settings:q} --result {output.result:q} 2>&1 | tee {log:q}"


use rule accuracy as accuracy_real with:
    input:
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
    output:
        result="results/{dataset}/internal/real/seed{seed}/accuracy.json",
    log:
        "results/{dataset}/internal/logs/accuracy/real-seed{seed}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/accuracy/real-seed{seed}.tsv"


def reference_split(dataset):
    split = CONFIG.stage("fid", dataset=dataset)["reference_split"]
    return f"results/{dataset}/internal/{split}.h5"


def cells(dataset, *, internal):
    """One entry a release of the data set: its coordinates and files."""
    unconditional = len(CONFIG.datasets[dataset].class_names) == 1
    entries = []
    for method, seed, epsilon in product(
        CONFIG.run.methods, CONFIG.run.seeds, map(epsilon_label, CONFIG.run.epsilons)
    ):
        shared = f"{method}/seed{seed}"
        cell = f"{shared}/eps{epsilon}"
        entry = {
            "privacy": f"results/{dataset}/{cell}/privacy.json",
            "images": f"results/{dataset}/{cell}/images.h5",
            "subset": f"results/{dataset}/{shared}/subset.json",
        }
        if internal:
            entry["fid"] = f"results/{dataset}/internal/{cell}/fid.json"
            entry["curve"] = f"results/{dataset}/internal/{cell}/training.csv"
            if not unconditional:
                entry["accuracy"] = f"results/{dataset}/internal/{cell}/accuracy.json"
        entries.append(({"method": method, "seed": seed, "epsilon": float(epsilon)}, entry))
    return entries


def cell_files(internal):
    return lambda wildcards: [
        f for _, entry in cells(wildcards.dataset, internal=internal) for f in entry.values()
    ]


def cells_flag(internal):
    return lambda wildcards: canonical([{**c, **e} for c, e in cells(wildcards.dataset, internal=internal)])


def queries(wildcards):
    names = {CONFIG.methods[method].query for method in CONFIG.run.methods}
    return [f"results/{wildcards.dataset}/query/{name}.json" for name in sorted(names - {None})]


def real_accuracies(wildcards):
    if len(CONFIG.datasets[wildcards.dataset].class_names) == 1:
        return []
    return [
        f"results/{wildcards.dataset}/internal/real/seed{seed}/accuracy.json" for seed in CONFIG.run.seeds
    ]


def benchmarks(wildcards):
    """Where the stages left their times; files of stages that were not needed are absent."""
    public = CONFIG.datasets[wildcards.dataset].public
    folder = f"results/{wildcards.dataset}/internal/benchmarks"
    files = {
        f"{stage}/{public}": f"results/public/{public}/benchmarks/{stage}.tsv"
        for stage in ("preprocess", "classifier")
    }
    files |= {"preprocess": f"{folder}/preprocess.tsv"}
    files |= {f"query/{query}": f"{folder}/query/{query}.tsv" for query in CONFIG.queries}
    for method, seed in product(CONFIG.run.methods, CONFIG.run.seeds):
        for stage in ("select", "pretrain"):
            files[f"{stage}/{method}/seed{seed}"] = f"{folder}/{stage}/{method}-seed{seed}.tsv"
        for epsilon in map(epsilon_label, CONFIG.run.epsilons):
            for stage in ("finetune", "sample", "fid", "accuracy"):
                label = f"{stage}/{method}/seed{seed}/eps{epsilon}"
                files[label] = f"{folder}/{stage}/{method}-seed{seed}-eps{epsilon}.tsv"
    return canonical(files)


rule report:
    input:
        cells=cell_files(internal=False),
        queries=queries,
    output:
        html="results/{dataset}/report.html",
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
        " --html {output.html:q} 2>&1 | tee {log:q}"


rule report_internal:
    input:
        cells=cell_files(internal=True),
        queries=queries,
        real_train=rules.preprocess_sensitive.output.train,
        real_test=rules.preprocess_sensitive.output.holdout,
        real_accuracy=real_accuracies,
    output:
        html="results/{dataset}/internal/report.html",
        summary="results/{dataset}/internal/summary.csv",
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
        " --odometer {params.odometer:q} --html {output.html:q} --summary {output.summary:q} 2>&1 | tee {log:q}"
