"""Show real images to a feature network, once for all that is compared with them.

Reads:   real images of both splits, the network's file or what `download` wrote of Inception.
Writes:  features, logits, mean and covariance of each split (HDF5), or why there are none; checksums beside them.
Privacy: evaluation, not private: features of real images are as sensitive as the images.
Source:  resizing for Inception by clean-fid (Parmar et al. 2022).
"""

from __future__ import annotations

from pathlib import Path

from privimage import cli
from privimage.artifacts import ImageSet, Provenance
from privimage.feature_sets import WEIGHTS_MISSING, FeatureSet
from privimage.metrics.extraction import extract
from privimage.metrics.feature_networks import FeatureNetwork, load_network, why_missing
from privimage.schema import plain
from privimage.settings import FeaturesSettings

VERSION = 2


def run(
    images: ImageSet,
    split: str,
    name: str,
    network: FeatureNetwork | None,
    settings: FeaturesSettings,
    why: str = "",
) -> FeatureSet:
    """What the network sees in one split; without a network, a set without images that says so, and ``why``."""
    parents = {"network": network.sha256} if network else {}
    provenance = Provenance("features", VERSION, plain(settings), parents)
    if network is None:
        return FeatureSet.empty(name, f"{WEIGHTS_MISSING} ({why.rstrip('.')})", images.class_names, provenance)
    return extract(network, images, settings.num_reference, f"{split} images", provenance)


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("features", __doc__, FeaturesSettings)
    parser.add_argument("--network", required=True, help="the network's name")
    parser.add_argument("--weights", type=Path, required=True, help="its file, or what `download` wrote of Inception")
    for split in ("train", "test"):
        parser.add_argument(f"--{split}", type=Path, required=True, help=f"real {split} images")
        parser.add_argument(f"--{split}-features", type=Path, required=True, help="their features (output)")
    args = parser.parse_args()
    settings = cli.settings_from(FeaturesSettings, args.settings)
    network = load_network(args.network, settings.network, args.weights)
    why = why_missing(settings.network, args.weights)
    for split, images, path in (("train", args.train, args.train_features), ("test", args.test, args.test_features)):
        run(ImageSet.read(images), split, args.network, network, settings, why).write(path)


if __name__ == "__main__":
    cli.run(main)
