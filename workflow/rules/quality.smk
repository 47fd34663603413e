# How near synthetic images are to real ones: internal, not private.

FEATURES = "results/{dataset}/internal/features/{network}"


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


rule features_part:
    input:
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
        weights=network_weights,
    output:
        train_features=temp(f"{FEATURES}/shards/{{shard}}-of-{{num_shards}}-train.h5"),
        train_sum=temp(f"{FEATURES}/shards/{{shard}}-of-{{num_shards}}-train.h5.sha256"),
        test_features=temp(f"{FEATURES}/shards/{{shard}}-of-{{num_shards}}-test.h5"),
        test_sum=temp(f"{FEATURES}/shards/{{shard}}-of-{{num_shards}}-test.h5.sha256"),
    log:
        "results/{dataset}/internal/logs/features_part/{network}/{shard}-of-{num_shards}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/features_part/{network}/{shard}-of-{num_shards}.tsv"
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
        checkpoints=f"{CONFIG.state_dir}/checkpoints/features",
        version=stage_version("features"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- features"
        " --network {wildcards.network} --weights {input.weights:q}"
        " --train {input.train:q} --test {input.test:q} --settings {params.settings:q}"
        " --checkpoints {params.checkpoints:q} --index {wildcards.shard} --of {wildcards.num_shards}"
        " --train-features {output.train_features:q} --test-features {output.test_features:q} 2>&1 | tee {log:q}"


rule features_real:
    input:
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
        weights=network_weights,
        train_shards=features_parts("train.h5"),  # none, if this job looks at everything itself
        test_shards=features_parts("test.h5"),
        sums=lambda wildcards: features_parts("train.h5.sha256")(wildcards)
        + features_parts("test.h5.sha256")(wildcards),
    output:
        train_features=f"{FEATURES}/train.h5",
        train_sum=f"{FEATURES}/train.h5.sha256",
        test_features=f"{FEATURES}/test.h5",
        test_sum=f"{FEATURES}/test.h5.sha256",
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
        checkpoints=f"{CONFIG.state_dir}/checkpoints/features",
        version=stage_version("features"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- features"
        " --network {wildcards.network} --weights {input.weights:q}"
        " --train {input.train:q} --test {input.test:q} --settings {params.settings:q}"
        " --checkpoints {params.checkpoints:q} --train-shards {input.train_shards:q} --test-shards {input.test_shards:q}"
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
