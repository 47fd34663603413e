"""Find out whether the selected public classes mean what the sensitive classes mean.

Reads:   real training and test images, the public classifier, the selected classes, the query; a file of word vectors.
Writes:  the share of test images that the classifier puts into selected classes, word by word cosines, the true votes.
Privacy: evaluation, not private: the numbers depend on the real images without any noise.
Source:  Li et al. 2024 (mean cosine of word vectors of class names).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, QueryResult, Subset, Weights, sha256
from privimage.classifiers.load import load_classifier
from privimage.classifiers.votes import histogram
from privimage.errors import UserError
from privimage.evaluation_settings import SemanticsSettings
from privimage.measurements import Semantics
from privimage.metrics.word_vectors import agreement_of, read_vectors
from privimage.schema import plain

VERSION = 1
NO_VECTORS = "No word vectors: name a file of them as semantics.word_vectors, such as GloVe's, for the mean cosine."


def run(
    train: ImageSet,
    test: ImageSet,
    classifier: nn.Module,
    public_class_names: list[str],
    subset: Subset,
    query: QueryResult | None,
    vectors: Mapping[str, np.ndarray] | None,
    provenance: Provenance,
) -> Semantics:
    """How well the subset's classes fit; ``vectors`` are those of class names, None without a file.

    Raises:
        UserError: if the subset is not one of these sensitive and public classes.
    """
    _check(test, public_class_names, subset)
    num_public = len(public_class_names)
    votes = histogram(train, classifier, num_public, query.top_k).astype(float).tolist() if query else []
    columns = {name: [public_class_names.index(p) for p in chosen] for name, chosen in subset.classes.items()}
    seen = histogram(test, classifier, num_public, 1)  # [classes, public classes]
    shares = {
        name: float(row[columns[name]].sum() / row.sum()) for name, row in zip(test.class_names, seen) if row.sum()
    }
    named = {*subset.classes, *(name for chosen in subset.classes.values() for name in chosen)}
    return Semantics(
        histogram=votes,
        agreement=shares,
        chance=float(np.mean([len(chosen) / num_public for chosen in subset.classes.values()])),
        cosine={} if vectors is None else agreement_of(subset.classes, vectors),
        note=NO_VECTORS if vectors is None else "",
        provenance=provenance,
        unknown=[] if vectors is None else sorted(named - vectors.keys()),
    )


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("semantics", __doc__, SemanticsSettings)
    parser.add_argument("--train", type=Path, required=True, help="real training images")
    parser.add_argument("--test", type=Path, required=True, help="real test images")
    parser.add_argument("--classifier", type=Path, required=True, help="the public classifier")
    parser.add_argument("--subset", type=Path, required=True, help="public classes of each class")
    parser.add_argument("--query", type=Path, help="the noisy histogram, if the method reads one")
    parser.add_argument("--result", type=Path, required=True, help="the measurement (output)")
    args = parser.parse_args()
    settings = cli.settings_from(SemanticsSettings, args.settings)
    weights, subset = Weights.read(args.classifier, "classifier"), Subset.read(args.subset)
    query = QueryResult.read(args.query) if args.query else None
    public, vectors = weights.facts["class_names"], None
    files = {"classifier": args.classifier, "subset": args.subset, "query": args.query}
    if settings.word_vectors:
        files["word_vectors"] = Path(settings.word_vectors)
        vectors = read_vectors(files["word_vectors"], {*subset.classes, *public})
    parents = {name: sha256(path) for name, path in files.items() if path}
    provenance = Provenance("semantics", VERSION, plain(settings), parents)
    train, test = ImageSet.read(args.train), ImageSet.read(args.test)
    run(train, test, load_classifier(weights), public, subset, query, vectors, provenance).write(args.result)


def _check(test: ImageSet, public_class_names: list[str], subset: Subset) -> None:
    unknown = {name for chosen in subset.classes.values() for name in chosen} - set(public_class_names)
    if set(subset.classes) != set(test.class_names) or unknown:
        raise UserError(
            f"the subset selects for {len(subset.classes)} classes and names {len(unknown)} unknown public classes; "
            f"expected the {len(test.class_names)} classes of the images and none; rerun `select`."
        )
    if not any(subset.classes.values()):
        raise UserError(
            f"the subset of policy `{subset.policy}` selects no classes; expected one of `query` or `random`."
        )


if __name__ == "__main__":
    cli.run(main)
