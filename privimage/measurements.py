"""The files that measuring stages write: what was computed from real images, without noise. They stay inside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privimage.artifacts import JsonArtifact, Provenance, reading, write_text


@dataclass(frozen=True)
class Quality(JsonArtifact):
    """How near synthetic images are to real ones in the features of one network. Not private.

    ``metrics`` maps a name that ends in the network's to its value: ``fd_`` Frechet distance (``fid_`` for Inception),
    ``kd_`` kernel distance, ``precision_``, ``recall_``, ``density_``, ``coverage_``, ``is_`` inception score, and
    ``<distance>_gap``: the Frechet distance to test images less that to training images, from ``num_gap`` of each;
    above zero, the synthetic images are nearer to what was trained on than to unseen images. A value is None where the
    network's weights are missing, which ``note`` then says. ``deviations`` maps the names of those that are means over
    several subsets to the standard deviation; images that every subset holds add nothing to it.
    """

    feature_network: str
    metrics: dict[str, float | None]
    num_synthetic: int
    num_reference: int
    reference_split: str
    provenance: Provenance
    note: str = ""
    private: bool = False
    resizing: str = ""
    num_gap: int = 0
    deviations: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracy(JsonArtifact):
    """Accuracy on real test images of classifiers trained on synthetic ones, as fractions. Not private.

    ``classifiers`` maps a name to ``values`` (one a repetition), ``mean`` and ``std``. ``confusion`` maps a name to
    counts of test images, [class][predicted class], summed over the repetitions.
    """

    classifiers: dict[str, dict[str, Any]]
    mean_accuracy: float
    protocol: str
    num_train: int
    num_test: int
    provenance: Provenance
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    private: bool = False


@dataclass(frozen=True)
class Memorisation(JsonArtifact):
    """Are synthetic images nearer to training images than to unseen ones? Not private.

    ``closer_to_train`` is the share of synthetic images whose nearest training image is nearer than their nearest test
    image, among as many of either; one half is what a generator that copies nothing has. ``interval`` is its 95 %
    interval. Three more shares have ``share``, ``interval`` and ``num_images``. ``weighed``: of the synthetic images,
    those whose nearest real image is a training image, weighed as if there were as many test images; copies count whole
    however few test images there are. ``closest``: the same of those nearest to any real image, where a few copies
    among many are seen; 1 if all are. ``control``: as ``closer_to_train``, of one half of the test images
    against the training images and the other half; it misses one half where training and test images differ for other
    reasons than copying. ``num_duplicates`` maps ``train`` and ``test`` to the number of synthetic images that equal
    one of those pixel by pixel. ``copies`` counts the real images that equal a synthetic one and no other real one,
    ``num_train`` and ``num_test``, with the ``p_value`` of so many training images among them where nothing is copied.

    ``distances`` maps ``synthetic_to_train``, ``synthetic_to_test``, ``test_to_train`` to quantiles (0, 1, ..., 100 %)
    of the distance to the nearest, among ``num_reference`` of either. ``nearest`` holds the synthetic images nearest to
    a training image, nearest first: the index of the ``synthetic`` image, the indices of its nearest ``train`` images,
    its ``distance``.
    """

    feature_network: str
    closer_to_train: float
    interval: list[float]
    distances: dict[str, list[float]]
    nearest: list[dict[str, Any]]
    num_synthetic: int
    num_reference: int
    provenance: Provenance
    closest: dict[str, Any] = field(default_factory=dict)
    control: dict[str, Any] = field(default_factory=dict)
    num_duplicates: dict[str, int] = field(default_factory=dict)
    weighed: dict[str, Any] = field(default_factory=dict)
    copies: dict[str, Any] = field(default_factory=dict)
    private: bool = False


@dataclass(frozen=True)
class Membership(JsonArtifact):
    """A membership-inference attack on the released model: does its loss betray training images? Not private.

    ``auc`` is the area under the curve (one half: no better than guessing) with its 95 % ``auc_interval``; ``tpr``
    maps a false-positive rate, ``0.05``, with 1,000 non-members ``0.01``, with 10,000 ``0.001``, to the true-positive
    ``rate``, its ``interval``, and the rate that the (epsilon, delta) of the release has ``permitted``, None if
    it is not private; ``roc`` holds points [false-positive rate, true-positive rate]; ``auc_by_sigma`` maps a noise
    level to the area of its loss alone.
    """

    auc: float
    auc_interval: list[float]
    tpr: dict[str, dict[str, Any]]
    roc: list[list[float]]
    auc_by_sigma: dict[str, float]
    num_members: int
    num_non_members: int
    provenance: Provenance
    private: bool = False


@dataclass(frozen=True)
class Audit(JsonArtifact):
    """What a training with canaries, of which nothing is kept, says about a claimed epsilon. Not private.

    ``claimed_epsilon`` is what ``event``, the release's DP-SGD alone, costs at ``delta``. Of ``num_canaries`` canaries
    half were in, by coins; ``num_guesses`` were guessed about and ``num_correct`` of those rightly. With
    ``confidence``, the mechanism's epsilon at ``delta`` is at least ``lower_bound``.
    """

    claimed_epsilon: float
    delta: float
    lower_bound: float
    confidence: float
    num_canaries: int
    num_guesses: int
    num_correct: int
    event: dict[str, Any]
    provenance: Provenance
    private: bool = False
    note: str = "of a training that is not released, of which nothing is kept and nothing is charged; internal"


@dataclass(frozen=True)
class Semantics(JsonArtifact):
    """Do the selected public classes mean what the sensitive classes mean? Not private.

    ``histogram`` is the query's without noise, [class][public class]; empty for a method that reads no query.
    ``agreement`` maps a sensitive class to the share of its test images that the classifier puts into its selected
    classes, leaving out classes without test images; ``chance`` is what as many classes at random would get on
    average. ``cosine`` maps a sensitive class to the mean cosine of its word vector and those of its selected classes;
    empty without a file of vectors, and ``note`` says so. ``unknown`` lists the classes that no vector is known for.
    """

    histogram: list[list[float]]
    agreement: dict[str, float]
    chance: float
    cosine: dict[str, float]
    note: str
    provenance: Provenance
    unknown: list[str] = field(default_factory=list)
    private: bool = False


@dataclass(frozen=True)
class Curve:
    """A training curve as CSV: one row a record, first column ``step``. Of sensitive data: internal only."""

    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    def write(self, path: Path) -> None:
        """The file exists; the first row ends with a checksum of all."""
        lines = [",".join(self.columns), *(",".join(f"{value:.6g}" for value in row) for row in self.rows)]
        write_text(path, "\n".join(_with_seal(lines)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Curve:
        """The curve.

        Raises:
            ArtifactError: if the file is absent, damaged, or not a table of numbers.
        """
        with reading(path):
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            if lines and not lines[0].endswith(",sha256"):  # of a version that sealed nothing
                lines = _with_seal(lines)
            head, *body = [line.rpartition(",")[0] for line in lines]
            if not body or lines != _with_seal([head, *body]):
                raise ValueError("its content does not match its checksum")
            return cls(tuple(head.split(",")), tuple(tuple(map(float, line.split(","))) for line in body))


def _with_seal(lines: list[str]) -> list[str]:
    """The lines of a table with one column more, which says a checksum of them in its first row."""
    seal = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return [f"{line},{end}" for line, end in zip(lines, ["sha256", seal, *[""] * len(lines)])]
