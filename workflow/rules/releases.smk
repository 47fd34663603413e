# What there is of a data set: the queries that its methods read, and what to report and to tabulate.

import json
from functools import cache
from itertools import product
from shlex import quote

from privimage.data.published import INCEPTION
from privimage.networks import cache_folder


def query_of(wildcards):
    """The noisy query that the method reads and pays for; nothing for the others."""
    query = CONFIG.methods[wildcards.method].query
    return [f"results/{wildcards.dataset}/query/{query}.json"] if query else []


def query_flag(wildcards, input):
    return f"--query {input.query}" if input.query else ""


@cache
def models_of(dataset):
    return CONFIG.pretrained_as(dataset)


def pretrained_as(dataset, method):
    """The method in whose folder the pretrained model of a method lies: of equal ones, one is trained."""
    return models_of(dataset)[method]


def of_pretraining(name):
    """A function of wildcards: a file of the pretraining that the method's private training starts from."""

    def file(wildcards):
        method = pretrained_as(wildcards.dataset, wildcards.method)
        return f"results/{wildcards.dataset}/{method}/seed{wildcards.seed}/{name}"

    return file


@cache
def private_models_of(dataset):
    return CONFIG.trained_as(dataset)


def trained_as(dataset, method):
    """The method that draws the private model of a method: of equal ones, one is drawn and charged."""
    return private_models_of(dataset)[method]


def alike(wildcards):
    """The methods that train as this one does, itself among them; their names need no quotes."""
    models = private_models_of(wildcards.dataset)
    return " ".join(method for method in models if models[method] == models[wildcards.method])


def same_training(wildcards):
    """The private model that is this method's too, if another method draws it."""
    method = trained_as(wildcards.dataset, wildcards.method)
    cell = CELL.format(method=method, seed=wildcards.seed, epsilon=wildcards.epsilon)
    return [] if method == wildcards.method else [f"results/{wildcards.dataset}/{cell}/finetuned.safetensors"]


def classifier_read(wildcards):
    """The public classifier, for methods whose private training looks through it."""
    reads = GENERATORS[generator_of(wildcards)].READS_CLASSIFIER
    return public_of("classifier.safetensors")(wildcards) if reads else []


def public_read(wildcards):
    """The public images, for methods whose private training damps gradients by them."""
    damped = getattr(stage_of("finetune", wildcards.dataset, wildcards.method), "damped_directions", 0)
    return public_of("train.h5")(wildcards) if damped else []


def guide_read(wildcards):
    """The public model, for methods whose images are pushed away from what it guesses."""
    how = stage_of("sample", wildcards.dataset, wildcards.method)
    reads = GENERATORS[generator_of(wildcards)].GUIDED and how.guidance == "domain" and how.guidance_scale
    return of_pretraining("pretrained.safetensors")(wildcards) if reads else []


def classifier_flag(wildcards, input):
    return f"--classifier {input.classifier}" if input.classifier else ""


def public_flag(wildcards, input):
    return f"--public {quote(input.public)}" if input.public else ""


def released(wildcards):
    """What the method releases, and the flag of what it pays for besides: how its classifiers' epochs are chosen.

    Of wildcards alone: a parameter that looks at inputs is not compared when Snakemake decides what to run again.
    """
    epsilons = CONFIG.validation_epsilons(wildcards.dataset)
    return CONFIG.methods[wildcards.method].releases + (("--validation-epsilons", *epsilons) if epsilons else ())


def chosen_by(wildcards):
    """The sensitive images by which epochs are chosen with noise, and the statement that pays for it."""
    if not CONFIG.validation_epsilons(wildcards.dataset):
        return []
    folder = f"results/{wildcards.dataset}"
    return [f"{folder}/internal/train.h5", f"{folder}/{CELL}/privacy.json".format(**wildcards)]


def validation_flags(wildcards, input):
    if not input.chosen_by:
        return ""
    sensitive, privacy = input.chosen_by
    return (
        f"--sensitive {quote(sensitive)} --privacy {quote(privacy)} --dataset {quote(wildcards.dataset)}"
        f" --method {quote(wildcards.method)} --epsilon {wildcards.epsilon}"
        f" --declared {quote(declared(wildcards))} --state-dir {quote(CONFIG.state_dir)}"
    )


def inception_folder(wildcards=None):
    """Looked up only where Inception is asked for: a user without a home may do without."""
    try:
        return str(cache_folder())
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def inception_file():
    """What tells whether Inception is there: another file once weights lie there that the download had missed.

    So their arrival makes anew what lacked them, and nothing is made again after that.
    """
    first = Path("data/inception/complete.json")
    arrived = Path(inception_folder(), INCEPTION.name).exists()
    missed = arrived and first.exists() and isinstance(json.loads(first.read_text()), dict)
    return "data/inception/arrived.json" if missed else str(first)


def network_weights(wildcards):
    """A feature network's file; of Inception, what tells whether it is there."""
    network = CONFIG.networks[wildcards.network]
    if network.is_inception:
        return inception_file()
    return network.path or public_of("classifier.safetensors")(wildcards)


def word_vectors(wildcards):
    """The file of word vectors, if there is one."""
    return CONFIG.datasets[wildcards.dataset].semantics.word_vectors or []


def memory(megabytes):
    """A function of wildcards: so much, and ten bytes a pixel and channel of the larger set of images.

    For stages that hold all images at once as float32, for a while twice; others read them from the file as needed.
    """

    def needed(wildcards):
        row = CONFIG.datasets[wildcards.dataset]
        public = CONFIG.publics[row.public]
        values = max(row.num_images, row.sample.num_images) * public.resolution**2 * public.channels
        return megabytes + 10 * values // 10**6

    return needed


def looked_into(method):
    """Whether the method's model is one that the attack and the audit can look into."""
    return GENERATORS[CONFIG.methods[method].generator].HAS_LOSS


def audited(dataset):
    """The one release whose training is audited: the first method with such a model, first seed, smallest epsilon, the
    only one whose claim is near what so many guesses can find. None where audits are off.
    """
    trained = [method for method in CONFIG.run.methods if looked_into(method)]
    if CONFIG.datasets[dataset].audit.num_canaries == 0 or not trained:
        return None
    return trained[0], CONFIG.run.seeds[0], epsilon_label(min(CONFIG.run.epsilons))


@cache
def cells(dataset, *, internal):
    """One entry a release of the data set: its coordinates and files."""
    unconditional = len(CONFIG.datasets[dataset].class_names) == 1
    entries = []
    for method, seed, epsilon in CONFIG.run.releases():
        epsilon = epsilon_label(epsilon)
        shared = f"{method}/seed{seed}"
        cell = f"{shared}/eps{epsilon}"
        entry = {
            "privacy": f"results/{dataset}/{cell}/privacy.json",
            "images": f"results/{dataset}/{cell}/images.h5",
            "subset": f"results/{dataset}/{pretrained_as(dataset, method)}/seed{seed}/subset.json",
        }
        if internal:
            networks = CONFIG.datasets[dataset].quality.networks
            entry["quality"] = [f"results/{dataset}/internal/{cell}/quality/{name}.json" for name in networks]
            entry["curve"] = f"results/{dataset}/internal/{cell}/training.csv"
            entry["memorisation"] = f"results/{dataset}/internal/{cell}/memorisation.json"
            if looked_into(method):
                entry["membership"] = f"results/{dataset}/internal/{cell}/membership.json"
            if CONFIG.methods[method].policy in ("query", "random"):
                entry["semantics"] = f"results/{dataset}/internal/{shared}/semantics.json"
            if audited(dataset) == (method, seed, epsilon):
                entry["audit"] = f"results/{dataset}/internal/{cell}/audit.json"
            if not unconditional:
                entry["accuracy"] = f"results/{dataset}/internal/{cell}/accuracy.json"
        entries.append(({"method": method, "seed": seed, "epsilon": float(epsilon)}, entry))
    return entries


def releases(wildcards):
    """What this run and its ablations release of the set, each once: for what cards and reports say of all together."""
    varied = [
        point for name in CONFIG.run.ablations or () for point in ablations.points(CONFIG, wildcards.dataset, name)
    ]
    listed = [*CONFIG.run.releases(), *((point.method, point.seed, point.epsilon) for point in varied)]
    return [
        {
            "method": method,
            "seed": seed,
            "privacy": f"results/{wildcards.dataset}/{method}/seed{seed}/eps{epsilon}/privacy.json",
        }
        for method, seed, epsilon in dict.fromkeys((m, s, epsilon_label(e)) for m, s, e in listed)
    ]


def cell_files(internal):
    def files(wildcards):
        named = [value for _, entry in cells(wildcards.dataset, internal=internal) for value in entry.values()]
        return [path for value in named for path in (value if isinstance(value, list) else [value])]

    return files


def cells_flag(internal):
    return lambda wildcards: canonical([{**c, **e} for c, e in cells(wildcards.dataset, internal=internal)])


def queries(wildcards):
    return [f"results/{wildcards.dataset}/query/{name}.json" for name in queries_read()]


def queries_read():
    """The queries that the run's methods read; its ablations may read more."""
    return sorted({CONFIG.methods[method].query for method in CONFIG.run.methods} - {None})


def real_accuracies(wildcards):
    if len(CONFIG.datasets[wildcards.dataset].class_names) == 1:
        return []
    return [f"results/{wildcards.dataset}/internal/real/seed{seed}/accuracy.json" for seed in CONFIG.run.seeds]


def benchmarks(wildcards):
    """Where the stages before the report left their times; files of stages that were not needed are absent."""
    public = CONFIG.datasets[wildcards.dataset].public
    folder = f"results/{wildcards.dataset}/internal/benchmarks"
    files = {
        f"{stage}/{public}": f"results/public/{public}/benchmarks/{stage}.tsv" for stage in ("preprocess", "classifier")
    }
    files |= {"preprocess": f"{folder}/preprocess.tsv"}
    for label, where, row in (
        ("shard/public", f"results/public/{public}/benchmarks", CONFIG.publics[public]),
        ("shard", folder, CONFIG.datasets[wildcards.dataset]),
    ):
        names = names_of_shards(row.preprocess.num_shards)
        files |= {f"{label}/{name}": f"{where}/shard/{name}.tsv" for name in names}
    files |= {f"query/{query}": f"{folder}/query/{query}.tsv" for query in queries_read()}
    quality = CONFIG.datasets[wildcards.dataset].quality
    networks = quality.networks
    for name, shard in product(networks, names_of_shards(quality.num_shards)):  # where there are several
        files[f"features_part/{name}/{shard}"] = f"{folder}/features_part/{name}/{shard}.tsv"
    files |= {f"features/{name}": f"{folder}/features/{name}.tsv" for name in networks}
    files |= {f"accuracy/real/seed{seed}": f"{folder}/accuracy/real-seed{seed}.tsv" for seed in CONFIG.run.seeds}
    if audited(wildcards.dataset):  # no part of what its release took
        files["audit"] = "{}/audit/{}-seed{}-eps{}.tsv".format(folder, *audited(wildcards.dataset))
    for method, seed, epsilon in CONFIG.run.releases():
        files[f"semantics/{method}/seed{seed}"] = f"{folder}/semantics/{method}-seed{seed}.tsv"
        trained = pretrained_as(wildcards.dataset, method)
        for stage in ("select", "pretrain"):
            files[f"{stage}/{trained}/seed{seed}"] = f"{folder}/{stage}/{trained}-seed{seed}.tsv"
        epsilon = epsilon_label(epsilon)
        at, file = f"{method}/seed{seed}/eps{epsilon}", f"{method}-seed{seed}-eps{epsilon}.tsv"
        trained = trained_as(wildcards.dataset, method)
        files[f"finetune/{trained}/seed{seed}/eps{epsilon}"] = (
            f"{folder}/finetune/{trained}-seed{seed}-eps{epsilon}.tsv"
        )
        for stage in ("finetune", "sample", "accuracy", "memorisation", "membership"):
            files[f"{stage}/{at}"] = f"{folder}/{stage}/{file}"
        for shard in names_of_shards(
            stage_of("sample", wildcards.dataset, method).num_shards
        ):  # where there are several
            files[f"sample_part/{at}/{shard}"] = f"{folder}/sample_part/{file.removesuffix('.tsv')}/{shard}.tsv"
        for name in networks:
            files[f"quality/{at}/{name}"] = f"{folder}/quality/{name}/{file}"
    return canonical(files)


def tabulated(dataset, releases):
    """One entry a release: its coordinates, its measurements, and where the stages that made it left their times.

    Of accuracy and quality alone: a study waits for no attack, no release folder and no report.
    """
    row = CONFIG.datasets[dataset]
    inside = f"results/{dataset}/internal"
    entries = []
    for extra, method, seed, epsilon in releases:
        epsilon = epsilon_label(epsilon)
        cell, notes = f"{method}/seed{seed}/eps{epsilon}", f"{inside}/benchmarks"
        shards = names_of_shards(stage_of("sample", dataset, method).num_shards)
        drawn = f"{notes}/sample_part/{method}-seed{seed}-eps{epsilon}"
        parts = [f"{drawn}/{shard}.tsv" for shard in shards if len(shards) > 1]
        entry = {
            **{"method": method, "seed": seed, "epsilon": float(epsilon), **extra},
            "privacy": f"results/{dataset}/{cell}/privacy.json",
            "quality": [f"{inside}/{cell}/quality/{name}.json" for name in row.quality.networks],
            "seconds": {
                "pretrain": [f"{notes}/pretrain/{pretrained_as(dataset, method)}-seed{seed}.tsv"],
                "finetune": [f"{notes}/finetune/{trained_as(dataset, method)}-seed{seed}-eps{epsilon}.tsv"],
                "sample": [*parts, f"{notes}/sample/{method}-seed{seed}-eps{epsilon}.tsv"],
            },
        }
        if len(row.class_names) > 1:
            entry["accuracy"] = f"{inside}/{cell}/accuracy.json"
        entries.append(entry)
    return entries


def run_of(wildcards):
    return tabulated(wildcards.dataset, [({}, *release) for release in CONFIG.run.releases()])


def ablation_of(wildcards):
    found = ablations.points(CONFIG, wildcards.dataset, wildcards.ablation)
    return tabulated(wildcards.dataset, [({"value": p.value}, p.method, p.seed, p.epsilon) for p in found])


def files_of(entries):
    """A function of wildcards: the files that the entries name, but for times."""
    return lambda w: [
        path
        for entry in entries(w)
        for path in (entry["privacy"], *entry["quality"], *([entry["accuracy"]] if "accuracy" in entry else []))
    ]
