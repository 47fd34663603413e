"""Measure how near synthetic images are to real ones, in the features of one network.

Reads:   synthetic images, features of the real ones, the network's file or what `download` wrote of Inception.
Writes:  Frechet and kernel distance, precision, recall, density, coverage, the inception score where the network has
         logits, the gap between unseen and training images; with counts, split and resizing.
Privacy: evaluation, not private: the numbers depend on the real images without any noise.
Source:  Heusel et al. 2017, Binkowski et al. 2018, Kynkaanniemi et al. 2019, Naeem et al. 2020, Salimans et al. 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.errors import UserError
from privimage.evaluation_settings import ComparisonSettings
from privimage.feature_sets import FeatureSet
from privimage.measurements import Quality
from privimage.metrics.extraction import extract
from privimage.metrics.feature_networks import FeatureNetwork, load_network
from privimage.metrics.frechet import frechet_distance, moments_of
from privimage.metrics.inception_score import inception_score
from privimage.metrics.kernel import kernel_distance
from privimage.metrics.neighbours import neighbour_metrics
from privimage.schema import plain

VERSION = 3


def run(
    synthetic: ImageSet,
    real: Mapping[str, FeatureSet],
    network: FeatureNetwork | None,
    settings: ComparisonSettings,
    provenance: Provenance,
) -> Quality:
    """All metrics under ``network``; ``real`` maps `train` and `test` to what that network saw in them.

    Where the real features or the network are missing, the same record with no value and a note.

    Raises:
        UserError: if the real features are another network's.
    """
    reference = real[settings.reference_split]
    distance = f"{'fid' if settings.network.is_inception else 'fd'}_{reference.network}"
    if network is None or reference.note:
        return Quality(
            feature_network=reference.network,
            metrics={distance: None},
            num_synthetic=0,
            num_reference=0,
            reference_split=settings.reference_split,
            provenance=provenance,
            note=reference.note,
        )
    if any(features.network_sha256 != network.sha256 for features in real.values()):
        raise UserError(f"the real images' features are not of this file of `{network.name}`; rerun `features`.")
    seen = extract(network, synthetic, settings.num_synthetic, "synthetic images")
    metrics, deviations = compare(seen, reference)
    num_gap = min(map(len, real.values()))
    return Quality(
        feature_network=network.name,
        metrics={distance: frechet_distance(seen, reference), **metrics, f"{distance}_gap": gap(seen, real, num_gap)},
        num_synthetic=len(seen),
        num_reference=len(reference),
        reference_split=settings.reference_split,
        provenance=provenance,
        resizing=network.resizing,
        num_gap=num_gap,
        deviations=deviations,
    )


def compare(synthetic: FeatureSet, reference: FeatureSet) -> tuple[dict[str, float | None], dict[str, float]]:
    """All metrics but the Frechet distance, by name, and the deviations of those that are means over subsets."""
    name = reference.network
    means: dict[str, tuple[float, float | None]] = {
        f"kd_{name}": kernel_distance(synthetic.features, reference.features)
    }
    if synthetic.logits.size:
        means[f"is_{name}"] = inception_score(synthetic.logits)
    near = neighbour_metrics(synthetic.features, reference.features)
    values = {key: mean for key, (mean, _) in means.items()} | {f"{key}_{name}": value for key, value in near.items()}
    return values, {key: deviation for key, (_, deviation) in means.items() if deviation is not None}


def gap(synthetic: FeatureSet, real: Mapping[str, FeatureSet], count: int) -> float:
    """Frechet distance to the first ``count`` test images less that to as many training images.

    Equal counts, since the distance depends on them. The idea is that of the feature likelihood divergence's
    generalisation gap (Jiralerspong et al. 2023).
    """
    to = {split: frechet_distance(synthetic, moments_of(real[split].features[:count])) for split in ("train", "test")}
    return to["test"] - to["train"]


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("quality", __doc__, ComparisonSettings)
    parser.add_argument("--network", required=True, help="the network's name")
    parser.add_argument("--weights", type=Path, required=True, help="its file, or what `download` wrote of Inception")
    parser.add_argument("--synthetic", type=Path, required=True, help="synthetic images")
    parser.add_argument("--train", type=Path, required=True, help="features of real training images")
    parser.add_argument("--test", type=Path, required=True, help="features of real test images")
    parser.add_argument("--result", type=Path, required=True, help="the metrics (output)")
    args = parser.parse_args()
    settings = cli.settings_from(ComparisonSettings, args.settings)
    network = load_network(args.network, settings.network, args.weights)
    parents = {"synthetic": sha256(args.synthetic)} | ({"network": network.sha256} if network else {})
    real = {split: FeatureSet.read(path) for split, path in (("train", args.train), ("test", args.test))}
    provenance = Provenance("quality", VERSION, plain(settings), parents)
    run(ImageSet.read(args.synthetic), real, network, settings, provenance).write(args.result)


if __name__ == "__main__":
    cli.run(main)
