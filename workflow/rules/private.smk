# From sensitive images to synthetic ones. Only `query` and `finetune` lead out of `internal/`, each at a stated cost.

CELL = "{method}/seed{seed}/eps{epsilon}"  # one release


rule shard_sensitive:
    input:
        lambda wildcards: fetched(dataset=wildcards.dataset),
    output:
        shard=temp("results/{dataset}/internal/shards/{shard}-of-{num_shards}.shard"),
    log:
        "results/{dataset}/internal/logs/shard/{shard}-of-{num_shards}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/shard/{shard}-of-{num_shards}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=720,
        gpu=0,
    params:
        settings=lambda wildcards: canonical(CONFIG.source(dataset=wildcards.dataset)),
        class_names=constant("class_names"),
        version=stage_version("shard"),
    shell:
        "python -m privimage.shard --settings {params.settings:q} --class-names {params.class_names:q}"
        " --index {wildcards.shard} --of {wildcards.num_shards} --shard {output.shard:q} 2>&1 | tee {log:q}"


rule preprocess_sensitive:
    input:
        shards=lambda w: shards(f"results/{w.dataset}/internal", CONFIG.datasets[w.dataset].preprocess),
    output:
        train="results/{dataset}/internal/train.h5",
        train_sum="results/{dataset}/internal/train.h5.sha256",
        holdout="results/{dataset}/internal/test.h5",
        holdout_sum="results/{dataset}/internal/test.h5.sha256",
        contents="results/{dataset}/internal/contents.json",
        sheet="results/{dataset}/internal/contact-sheet.png",
    log:
        "results/{dataset}/internal/logs/preprocess.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/preprocess.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=240,
        gpu=0,
    params:
        settings=lambda wildcards: canonical(CONFIG.join(dataset=wildcards.dataset)),
        num_images=constant("num_images"),
        version=stage_version("preprocess"),
    shell:
        # Shards with bad images go: the next start shall read what was mended.
        "python -m privimage.preprocess --settings {params.settings:q} --shards {input.shards:q}"
        " --num-images {params.num_images} --train {output.train:q} --holdout {output.holdout:q}"
        " --contents {output.contents:q} --sheet {output.sheet:q} 2>&1 | tee {log:q} || {{ rm -f {input.shards:q}; exit 1; }}"


rule query:
    input:
        images=rules.preprocess_sensitive.output.train,
        classifier=public_of("classifier.safetensors"),
    output:
        histogram="results/{dataset}/query/{query}.json",
    log:
        "results/{dataset}/internal/logs/query/{query}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/query/{query}.tsv"
    priority: 10  # much waits for it
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=1,
        declared=declared,  # a resource: of these constants, those that change the draw are parameters below
        budget=budget,
    params:
        settings=lambda wildcards: canonical(plain(CONFIG.query(wildcards.dataset, wildcards.query))),
        class_names=constant("class_names"),
        num_images=constant("num_images"),
        reproducible_noise=constant("reproducible_noise"),
        state_dir=CONFIG.state_dir,
        version=stage_version("query"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} -- query"
        " --dataset {wildcards.dataset:q} --images {input.images:q}"
        " --classifier {input.classifier:q} --settings {params.settings:q} --declared {resources.declared:q}"
        " --budget {resources.budget} --state-dir {params.state_dir:q}"
        " --histogram {output.histogram:q} 2>&1 | tee {log:q}"


rule select:
    input:
        public=public_of("train.h5"),
        query=query_of,
    output:
        subset="results/{dataset}/{method}/seed{seed}/subset.json",
    log:
        "results/{dataset}/internal/logs/select/{method}-seed{seed}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/select/{method}-seed{seed}.tsv"
    priority: 10  # much waits for it
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        gpu=0,
    params:
        settings=of_method("select"),
        class_names=constant("class_names"),
        policy=lambda wildcards: CONFIG.methods[wildcards.method].policy,
        query=query_flag,
        version=stage_version("select"),
    shell:
        "python -m privimage.select --policy {params.policy} --public {input.public:q} {params.query}"
        " --class-names {params.class_names:q} --settings {params.settings:q} --seed {wildcards.seed}"
        " --subset {output.subset:q} 2>&1 | tee {log:q}"


rule pretrain:
    input:
        public=public_of("train.h5"),
        subset=rules.select.output.subset,
    output:
        weights="results/{dataset}/{method}/seed{seed}/pretrained.safetensors",
    log:
        "results/{dataset}/internal/logs/pretrain/{method}-seed{seed}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/pretrain/{method}-seed{seed}.tsv"
    priority: 10  # much waits for it
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=2880,
        gpu=1,
        nodes=1,
        processes=1,
        compute=settings("compute"),
    params:
        settings=of_method("pretrain"),
        class_names=constant("class_names"),
        generator=generator_of,
        generator_version=generator_version,
        checkpoints=f"{CONFIG.state_dir}/checkpoints/pretrain",
        version=stage_version("pretrain"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- pretrain"
        " --seed {wildcards.seed} --generator {params.generator}"
        " --public {input.public:q} --subset {input.subset:q} --class-names {params.class_names:q}"
        " --settings {params.settings:q} --checkpoints {params.checkpoints:q} --compute {resources.compute:q}"
        " --weights {output.weights:q} 2>&1 | tee {log:q}"


rule finetune:
    input:
        images=rules.preprocess_sensitive.output.train,
        pretrained=of_pretraining("pretrained.safetensors"),
        subset=of_pretraining("subset.json"),
        query=query_of,
        classifier=classifier_read,
        public=public_read,
        same=same_training,  # drawn before, and then restored from the state folder
    output:
        weights=f"results/{{dataset}}/{CELL}/finetuned.safetensors",
        privacy=f"results/{{dataset}}/{CELL}/privacy.json",
        curve=f"results/{{dataset}}/internal/{CELL}/training.csv",
    log:
        "results/{dataset}/internal/logs/finetune/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/finetune/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=2880,
        gpu=1,
        nodes=1,
        processes=1,
        budget=budget,
        compute=settings("compute"),
        alike=alike,  # a resource: one method more that trains alike changes no draw
    params:
        settings=of_method("finetune"),
        declared=declared,
        releases=released,
        generator=generator_of,
        generator_version=generator_version,
        query=query_flag,
        classifier=classifier_flag,
        public=public_flag,
        state_dir=CONFIG.state_dir,
        version=stage_version("finetune"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- finetune"
        " --dataset {wildcards.dataset:q} --method {wildcards.method:q} --alike {resources.alike}"
        " --epsilon {wildcards.epsilon} --seed {wildcards.seed} --releases {params.releases}"
        " --images {input.images:q} --pretrained {input.pretrained:q} --subset {input.subset:q} {params.query}"
        " --generator {params.generator} {params.classifier} {params.public}"
        " --declared {params.declared:q} --settings {params.settings:q} --state-dir {params.state_dir:q}"
        " --budget {resources.budget} --compute {resources.compute:q} --weights {output.weights:q}"
        " --privacy {output.privacy:q} --curve {output.curve:q} 2>&1 | tee {log:q}"


rule sample_part:
    input:
        weights=rules.finetune.output.weights,
        pretrained=guide_read,
        privacy=rules.finetune.output.privacy,
    output:
        images=temp(f"results/{{dataset}}/{CELL}/shards/{{shard}}-of-{{num_shards}}.h5"),
        images_sum=temp(f"results/{{dataset}}/{CELL}/shards/{{shard}}-of-{{num_shards}}.h5.sha256"),
    log:
        "results/{dataset}/internal/logs/sample_part/{method}-seed{seed}-eps{epsilon}/{shard}-of-{num_shards}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/sample_part/{method}-seed{seed}-eps{epsilon}/{shard}-of-{num_shards}.tsv"
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
        settings=sampling,
        generator_version=generator_version,
        checkpoints=f"{CONFIG.state_dir}/checkpoints/sample",
        version=stage_version("sample"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- sample"
        " --weights {input.weights:q} --pretrained {input.pretrained:q} --privacy {input.privacy:q}"
        " --seed {wildcards.seed}"
        " --settings {params.settings:q} --checkpoints {params.checkpoints:q} --compute {resources.compute:q}"
        " --index {wildcards.shard} --of {wildcards.num_shards} --images {output.images:q} 2>&1 | tee {log:q}"


rule sample:
    input:
        weights=rules.finetune.output.weights,
        pretrained=guide_read,
        privacy=rules.finetune.output.privacy,
        shards=sample_parts(".h5"),  # none, if this job draws everything itself
        sums=sample_parts(".h5.sha256"),
    output:
        images=f"results/{{dataset}}/{CELL}/images.h5",
        images_sum=f"results/{{dataset}}/{CELL}/images.h5.sha256",
        grid=f"results/{{dataset}}/{CELL}/samples.png",
    log:
        "results/{dataset}/internal/logs/sample/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/sample/{method}-seed{seed}-eps{epsilon}.tsv"
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
        settings=sampling,
        generator_version=generator_version,
        checkpoints=f"{CONFIG.state_dir}/checkpoints/sample",
        version=stage_version("sample"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " --processes {resources.processes} -- sample"
        " --weights {input.weights:q} --pretrained {input.pretrained:q} --privacy {input.privacy:q}"
        " --seed {wildcards.seed}"
        " --settings {params.settings:q} --checkpoints {params.checkpoints:q} --compute {resources.compute:q}"
        " --shards {input.shards:q} --images {output.images:q} --grid {output.grid:q} 2>&1 | tee {log:q}"
