# How images come in: what must be fetched first, and the shards that are read and then joined.


def fetched(**row):
    """The file that says that a published set is in place; nothing for a user's own files and for drawn sets."""
    folder = CONFIG.fetched(**row)
    return [f"{folder}/complete.json"] if folder else []


def shards(folder, preprocess):
    count = preprocess.num_shards
    return [f"{folder}/shards/{index}-of-{count}.shard" for index in range(count)]
