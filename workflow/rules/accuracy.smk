# How useful synthetic images are to classifiers, tested on real ones: internal, not private.


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
        mem_mb=memory(2000),
        runtime=1440,
        gpu=1,
        budget=budget,
    params:
        settings=settings("accuracy"),
        validation=validation_flags,
        version=stage_version("accuracy"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} -- accuracy"
        " --train {input.train:q} --test {input.test:q} --seed {wildcards.seed}"
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
