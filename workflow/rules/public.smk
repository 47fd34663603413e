# From public images alone: shared by every data set, method, seed and epsilon.


rule preprocess_public:
    output:
        train="results/public/{public}/train.h5",
        train_sum="results/public/{public}/train.h5.sha256",
        holdout="results/public/{public}/val.h5",
        holdout_sum="results/public/{public}/val.h5.sha256",
    log:
        "results/public/{public}/logs/preprocess.log",
    benchmark:
        "results/public/{public}/benchmarks/preprocess.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        gpu=0,
    params:
        settings=lambda wildcards: canonical(CONFIG.source(public=wildcards.public)),
        version=stage_version("preprocess"),
    shell:
        "python -m privimage.preprocess --settings {params.settings:q}"
        " --train {output.train:q} --holdout {output.holdout:q} 2>&1 | tee {log:q}"


rule classifier:
    input:
        train=rules.preprocess_public.output.train,
        holdout=rules.preprocess_public.output.holdout,
    output:
        weights="results/public/{public}/classifier.safetensors",
    log:
        "results/public/{public}/logs/classifier.log",
    benchmark:
        "results/public/{public}/benchmarks/classifier.tsv"
    priority: 10  # much waits for it
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=1440,
        gpu=1,
    params:
        settings=settings("classifier"),
        checkpoints=f"{CONFIG.state_dir}/checkpoints/classifier",
        version=stage_version("classifier"),
    shell:
        "python -m privimage.classifier --train {input.train:q} --holdout {input.holdout:q}"
        " --settings {params.settings:q} --checkpoints {params.checkpoints:q}"
        " --weights {output.weights:q} 2>&1 | tee {log:q}"
