# How near synthetic images are to real ones: internal, not private.


rule quality:
    input:
        synthetic=rules.sample.output.images,
        real=reference_split,
        classifier=public_of("classifier.safetensors"),
    output:
        result=f"results/{{dataset}}/internal/{CELL}/quality.json",
    log:
        "results/{dataset}/internal/logs/quality/{method}-seed{seed}-eps{epsilon}.log",
    benchmark:
        "results/{dataset}/internal/benchmarks/quality/{method}-seed{seed}-eps{epsilon}.tsv"
    conda:
        "../../envs/privimage.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
        gpu=1,
    params:
        settings=settings("quality"),
        inception_present=inception_present,
        version=stage_version("quality"),
    shell:
        "python -m privimage.quality --synthetic {input.synthetic:q} --real {input.real:q}"
        " --classifier {input.classifier:q} --settings {params.settings:q}"
        " --result {output.result:q} 2>&1 | tee {log:q}"
