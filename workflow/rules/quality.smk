# How near synthetic images are to real ones: internal, not private.


rule download_inception:
    output:
        complete="data/inception/{inception}.json",
    log:
        "data/inception/logs/{inception}.log",
    benchmark:
        "data/inception/benchmarks/{inception}.tsv"
    wildcard_constraints:
        inception="complete|arrived",
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=720,
        gpu=0,
    params:
        folder=inception_folder,
        version=stage_version("download"),
    shell:
        "python -m privimage.download --source inception --folder {params.folder:q} --optional"
        " --complete {output.complete:q} 2>&1 | tee {log:q}"


rule features_real:
    input:
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
        weights=network_weights,
    output:
        train_features="results/{dataset}/internal/features/{network}/train.h5",
        train_sum="results/{dataset}/internal/features/{network}/train.h5.sha256",
        test_features="results/{dataset}/internal/features/{network}/test.h5",
        test_sum="results/{dataset}/internal/features/{network}/test.h5.sha256",
    log:
        "results/{dataset}/internal/logs/features/{network}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/features/{network}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=720,
        gpu=1,
        nodes=1,
        processes=1,
    params:
        settings=lambda wildcards: canonical(CONFIG.features(wildcards.dataset, wildcards.network)),
        version=stage_version("features"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- features"
        " --network {wildcards.network} --weights {input.weights:q}"
        " --train {input.train:q} --test {input.test:q} --settings {params.settings:q}"
        " --train-features {output.train_features:q} --test-features {output.test_features:q} 2>&1 | tee {log:q}"


rule quality:
    input:
        synthetic=rules.sample.output.images,
        train=rules.features_real.output.train_features,
        test=rules.features_real.output.test_features,
        weights=network_weights,
    output:
        result=f"results/{{dataset}}/internal/{CELL}/quality/{{network}}.json",
    log:
        "results/{dataset}/internal/logs/quality/{network}/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/quality/{network}/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=1,
    params:
        settings=lambda wildcards: canonical(CONFIG.comparison(wildcards.dataset, wildcards.network)),
        version=stage_version("quality"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} -- quality"
        " --network {wildcards.network} --weights {input.weights:q}"
        " --synthetic {input.synthetic:q} --train {input.train:q} --test {input.test:q}"
        " --settings {params.settings:q} --result {output.result:q} 2>&1 | tee {log:q}"
