"""Measure the Frechet distance between synthetic and real images.

Reads:   synthetic images, real images, and the public classifier or a local file of Inception.
Writes:  the distance, its metric's name (`fd_classifier` or `fid_inception`), and the counts behind it.
Privacy: evaluation, not private: the number depends on the real images without any noise.
Source:  Li et al. 2024; resizing for Inception by clean-fid (Parmar et al. 2022).
"""

from __future__ import annotations

from pathlib import Path

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, Weights, sha256
from privimage.errors import UserError
from privimage.measurements import Quality
from privimage.metrics.features import FeatureNetwork, classifier_features, inception_features
from privimage.metrics.frechet import Moments, frechet_distance
from privimage.progress import progress
from privimage.schema import plain
from privimage.settings import QualitySettings

VERSION = 1
METRICS = {"classifier": "fd_classifier", "inception": "fid_inception"}
WEIGHTS_MISSING = "FID: weights missing, see README"
BATCH_SIZE = 500


def run(
    synthetic: ImageSet,
    real: ImageSet,
    network: FeatureNetwork | None,
    settings: QualitySettings,
    provenance: Provenance,
) -> Quality:
    """The distance under ``network``; without a network, the same record with no value and a note.

    Raises:
        UserError: if the images differ in shape, or one side has fewer than two.
    """
    if synthetic.images.shape[1:] != real.images.shape[1:]:
        raise UserError(
            f"synthetic images have shape {list(synthetic.images.shape[1:])}, real ones "
            f"{list(real.images.shape[1:])}; expected the same; give the images of one data set."
        )
    value = None
    if network is not None:
        value = frechet_distance(moments(synthetic, network, "synthetic"), moments(real, network, "real"))
    return Quality(
        feature_network=settings.feature_network,
        metrics={METRICS[settings.feature_network]: value},
        num_synthetic=len(synthetic.labels),
        num_reference=len(real.labels),
        reference_split=settings.reference_split,
        provenance=provenance,
        note="" if network else WEIGHTS_MISSING,
    )


def moments(images: ImageSet, network: FeatureNetwork, name: str) -> Moments:
    """Mean and covariance of the images' features."""
    seen = Moments(network.width)
    starts = range(0, len(images.labels), BATCH_SIZE)
    for start in progress(starts, f"features of {name} images", len(starts)):
        seen.update(network.extract(images.images[start : start + BATCH_SIZE]))
    return seen


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("quality", __doc__, QualitySettings)
    parser.add_argument("--synthetic", type=Path, required=True, help="synthetic images")
    parser.add_argument("--real", type=Path, required=True, help="real images, of the split in the settings")
    parser.add_argument("--classifier", type=Path, required=True, help="the public classifier")
    parser.add_argument("--result", type=Path, required=True, help="the distance (output)")
    args = parser.parse_args()
    settings = cli.settings_from(QualitySettings, args.settings)
    network, parents = _network(settings, args.classifier)
    parents["synthetic"] = sha256(args.synthetic)
    provenance = Provenance("quality", VERSION, plain(settings), parents)
    run(ImageSet.read(args.synthetic), ImageSet.read(args.real), network, settings, provenance).write(args.result)


def _network(settings: QualitySettings, classifier: Path) -> tuple[FeatureNetwork | None, dict[str, str]]:
    """The feature network and its file's checksum; no network where Inception's file is absent."""
    if settings.feature_network == "classifier":
        return classifier_features(Weights.read(classifier, "classifier")), {"classifier": sha256(classifier)}
    if settings.inception_path is None:
        raise UserError("quality.inception_path is missing; the feature network `inception` needs its file.")
    path = Path(settings.inception_path)
    if not path.exists():
        return None, {}
    return inception_features(path), {"inception": sha256(path)}


if __name__ == "__main__":
    cli.run(main)
