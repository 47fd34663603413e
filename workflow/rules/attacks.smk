# What releases betray, whether what was selected makes sense, and an audit of training: internal, not private.


rule semantics:
    input:
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
        classifier=public_of("classifier.safetensors"),
        subset=of_pretraining("subset.json"),
        query=query_of,
        vectors=word_vectors,  # named by the settings; an edited file is another one
    output:
        result="results/{dataset}/internal/{method}/seed{seed}/semantics.json",
    log:
        "results/{dataset}/internal/logs/semantics/{method}-seed{seed}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/semantics/{method}-seed{seed}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=1,
    params:
        settings=settings("semantics"),
        query=query_flag,
        version=stage_version("semantics"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} -- semantics"
        " --train {input.train:q} --test {input.test:q}"
        " --classifier {input.classifier:q} --subset {input.subset:q} {params.query}"
        " --settings {params.settings:q} --result {output.result:q} 2>&1 | tee {log:q}"


rule memorisation:
    input:
        synthetic=rules.sample.output.images,
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
        classifier=public_of("classifier.safetensors"),
    output:
        result=f"results/{{dataset}}/internal/{CELL}/memorisation.json",
    log:
        "results/{dataset}/internal/logs/memorisation/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/memorisation/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=240,
        gpu=1,
    params:
        settings=settings("memorisation"),
        version=stage_version("memorisation"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} -- memorisation"
        " --synthetic {input.synthetic:q} --train {input.train:q}"
        " --test {input.test:q} --classifier {input.classifier:q} --settings {params.settings:q}"
        " --result {output.result:q} 2>&1 | tee {log:q}"


rule membership:
    input:
        weights=rules.finetune.output.weights,
        privacy=rules.finetune.output.privacy,
        train=rules.preprocess_sensitive.output.train,
        test=rules.preprocess_sensitive.output.holdout,
    output:
        result=f"results/{{dataset}}/internal/{CELL}/membership.json",
    log:
        "results/{dataset}/internal/logs/membership/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/membership/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=1,
        compute=settings("compute"),
    params:
        settings=settings("membership"),
        version=stage_version("membership"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} -- membership"
        " --weights {input.weights:q} --privacy {input.privacy:q}"
        " --train {input.train:q} --test {input.test:q} --settings {params.settings:q}"
        " --compute {resources.compute:q} --result {output.result:q} 2>&1 | tee {log:q}"


rule audit:
    input:
        images=rules.preprocess_sensitive.output.train,
        pretrained=of_pretraining("pretrained.safetensors"),
        privacy=rules.finetune.output.privacy,
    output:
        result=f"results/{{dataset}}/internal/{CELL}/audit.json",
    log:
        "results/{dataset}/internal/logs/audit/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/audit/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=2880,
        gpu=1,
        compute=settings("compute"),
    params:
        settings=settings("audit"),
        finetune=of_method("finetune"),
        declared=declared,
        version=stage_version("audit"),
    shell:
        "python -m privimage.launch --gpus {resources.gpu} -- audit"
        " --images {input.images:q} --pretrained {input.pretrained:q}"
        " --privacy {input.privacy:q} --finetune {params.finetune:q} --declared {params.declared:q}"
        " --settings {params.settings:q} --compute {resources.compute:q} --result {output.result:q} 2>&1 | tee {log:q}"
