# How images come in: what must be fetched first, and the shards that are read and then joined. What else is shared out.


def fetched(**row):
    """The file that says that a published set is in place; nothing for a user's own files and for drawn sets."""
    folder = CONFIG.fetched(**row)
    return [f"{folder}/complete.json"] if folder else []


def shards(folder, preprocess):
    return [f"{folder}/shards/{name}.shard" for name in names_of_shards(preprocess.num_shards)]


def names_of_shards(count):
    return [f"{index}-of-{count}" for index in range(count)]


def sampling(wildcards):
    """The settings of `sample` as canonical JSON: not in how many jobs, which changes no image."""
    return canonical(CONFIG.sampling(wildcards.dataset, wildcards.method))


def sample_parts(end):
    """A function of wildcards: what other jobs draw of a release, for `sample` to join; nothing where it draws alone."""

    def files(wildcards):
        count = stage_of("sample", wildcards.dataset, wildcards.method).num_shards
        folder = f"results/{wildcards.dataset}/{CELL}/shards".format(**wildcards)
        return [f"{folder}/{name}{end}" for name in names_of_shards(count) if count > 1]

    return files


def features_parts(end):
    """A function of wildcards: what other jobs see in a split, for `features_real` to join; nothing where it is alone."""

    def files(wildcards):
        count = CONFIG.datasets[wildcards.dataset].quality.num_shards
        return [f"{FEATURES}/shards/{name}-{end}".format(**wildcards) for name in names_of_shards(count) if count > 1]

    return files
