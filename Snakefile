# PrivImage: from a folder of sensitive images to a synthetic data set with a differential-privacy guarantee.
#
#   snakemake --cores 2                                       the default run (config/config.yaml)
#   snakemake --cores 2 --configfile config/mine.yaml         the same, with your settings merged over it
#   snakemake --cores 2 -R pretrain                           one stage again, and what follows from it
#   snakemake ablations --cores 2 --configfile config/ablations.yaml    also: study, paper, picks, hindsight
#
# Rules call `python -m privimage.<stage>`; a rule knows paths, a module knows mathematics.

from pathlib import Path

from snakemake.utils import min_version

min_version("9.19")


configfile: Path(workflow.basedir) / "config" / "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/cluster.smk"


rule all:
    input:
        [
            f"results/{dataset}/{method}/seed{seed}/eps{epsilon_label(epsilon)}/release/SHA256SUMS"
            for dataset in CONFIG.run.datasets
            for method, seed, epsilon in CONFIG.run.releases()
        ],
        expand("results/{dataset}/report.html", dataset=CONFIG.run.datasets),
        expand("results/{dataset}/internal/report.html", dataset=CONFIG.run.datasets),
    localrule: True


rule ablations:
    input:
        [
            f"results/{dataset}/internal/ablation/{ablation}.{end}"
            for dataset in CONFIG.run.datasets
            for ablation in CONFIG.run.ablations or ()
            for end in ("csv", "png")
        ],
    localrule: True


rule study:
    input:
        expand("results/{dataset}/internal/table.csv", dataset=CONFIG.run.datasets),
        rules.ablations.input,
    localrule: True


# `pick` chooses a method on each proxy that is run; `hindsight` says how well that predicts what is best on the set itself.
rule picks:
    input:
        lambda _: [f"results/{proxy}/internal/picked.yaml" for proxy in some(PICKED, "a data set's `proxy`")],
    localrule: True


rule hindsight:
    input:
        lambda _: expand(
            "results/{dataset}/internal/proxy.{end}",
            dataset=some(PROXIED, "a data set and its `proxy`"),
            end=("csv", "png"),
        ),
    localrule: True


rule paper:
    input:
        rules.study.input,
        expand("results/{dataset}/internal/paper.csv", dataset=CONFIG.run.datasets),
    localrule: True


include: "workflow/rules/images.smk"
include: "workflow/rules/public.smk"
include: "workflow/rules/releases.smk"
include: "workflow/rules/private.smk"
include: "workflow/rules/quality.smk"
include: "workflow/rules/accuracy.smk"
include: "workflow/rules/attacks.smk"
include: "workflow/rules/release.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/tabulate.smk"


onstart:
    scheduler_takes_jobs()
    owner_only()


onsuccess:
    owner_only()


onerror:
    owner_only()
