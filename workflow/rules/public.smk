# From public images alone: shared by every data set, method, seed and epsilon.

from privimage.data.published import PUBLISHED


rule download:
    output:
        complete="data/{source}/complete.json",
    log:
        "data/{source}/logs/download.log",
    benchmark:
        "data/{source}/benchmarks/download.tsv"
    wildcard_constraints:
        source="|".join(map(re.escape, PUBLISHED)),
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=720,
        gpu=0,
    params:
        version=stage_version("download"),
    shell:
        "python -m privimage.download --source {wildcards.source} --folder data/{wildcards.source}"
        " --complete {output.complete:q} 2>&1 | tee {log:q}"


rule shard_public:
    input:
        lambda wildcards: fetched(public=wildcards.public),
    output:
        shard=temp("results/public/{public}/shards/{shard}-of-{num_shards}.shard"),
    log:
        "results/public/{public}/logs/shard/{shard}-of-{num_shards}.log",
    benchmark:
        "results/public/{public}/benchmarks/shard/{shard}-of-{num_shards}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=720,
        gpu=0,
    params:
        settings=lambda wildcards: canonical(CONFIG.source(public=wildcards.public)),
        version=stage_version("shard"),
    shell:
        "python -m privimage.shard --settings {params.settings:q} --index {wildcards.shard} --of {wildcards.num_shards}"
        " --shard {output.shard:q} 2>&1 | tee {log:q}"


rule preprocess_public:
    input:
        shards=lambda w: shards(f"results/public/{w.public}", CONFIG.publics[w.public].preprocess),
    output:
        train="results/public/{public}/train.h5",
        train_sum="results/public/{public}/train.h5.sha256",
        holdout="results/public/{public}/val.h5",
        holdout_sum="results/public/{public}/val.h5.sha256",
        contents="results/public/{public}/contents.json",
        sheet="results/public/{public}/contact-sheet.png",
    log:
        "results/public/{public}/logs/preprocess.log",
    benchmark:
        "results/public/{public}/benchmarks/preprocess.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
        gpu=0,
    params:
        settings=lambda wildcards: canonical(CONFIG.join(public=wildcards.public)),
        version=stage_version("preprocess"),
    shell:
        # Shards with bad images go: the next start shall read what was mended.
        "python -m privimage.preprocess --settings {params.settings:q} --shards {input.shards:q}"
        " --train {output.train:q} --holdout {output.holdout:q} --contents {output.contents:q}"
        " --sheet {output.sheet:q} 2>&1 | tee {log:q} || {{ rm -f {input.shards:q}; exit 1; }}"


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
        nodes=1,
        processes=1,
        compute=settings("compute"),
    params:
        settings=settings("classifier"),
        checkpoints=f"{CONFIG.state_dir}/checkpoints/classifier",
        version=stage_version("classifier"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- classifier"
        " --train {input.train:q} --holdout {input.holdout:q}"
        " --settings {params.settings:q} --checkpoints {params.checkpoints:q} --compute {resources.compute:q}"
        " --weights {output.weights:q} 2>&1 | tee {log:q}"
