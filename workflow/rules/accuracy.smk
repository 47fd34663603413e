# How useful synthetic images are to classifiers, tested on real ones: internal, not private.


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
