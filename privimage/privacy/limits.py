"""What a guarantee does not cover, in plain sentences that travel with every release."""

from __future__ import annotations

from collections.abc import Sequence

from privimage.settings import Declared

ALWAYS = (
    "Other releases from the same images add up: epsilon here is the cost of this release alone, and the odometer in "
    "the state folder says what everything drawn from the images costs together.",
    "What lies in a folder named `internal`, and the logs of the stages that read it, is computed from real images "
    "without noise and has no guarantee: distances, accuracies, training losses, the images themselves.",
    "Settings that were chosen by looking at results on the sensitive images have cost privacy that is not counted.",
    "The declared constants (number of images, class names, delta, sampling probability) are taken as public; "
    "epsilon says nothing of them.",
    "The public images are assumed to share no image and no person with the sensitive ones.",
    "The noise of training is rounded to floating-point numbers and its tails end near 8.2 standard deviations; "
    "attacks on low-order bits are not excluded. (The noise of a query, or of votes, is drawn exactly.)",
    "Running times, memory use, crashes and error messages can depend on the sensitive images; whoever watches the "
    "computation is outside the guarantee.",
    "The state folder (keys, checkpoints, odometer) must stay secret while a stage runs. Where it was deleted, or two "
    "checkouts use one each, no odometer knows everything that was drawn.",
)


def not_covered(declared: Declared, missing_accountants: Sequence[str]) -> list[str]:
    """The sentences for one release, the gravest first."""
    sentences = []
    if declared.reproducible_noise:
        sentences.append(
            "NOT PRIVATE: the noise was reproducible (`reproducible_noise: true`), so anyone can compute and remove "
            "it. The numbers here are those of a run with secret noise."
        )
    if declared.images_per_unit == 1:
        sentences.append(
            "Epsilon protects one image. A person with several images is protected less; set `images_per_unit` to "
            "see by how much."
        )
    else:
        sentences.append(
            f"Epsilon protects one image; epsilon_per_unit protects a person with up to {declared.images_per_unit} "
            "images, and nobody with more."
        )
    for name in missing_accountants:
        sentences.append(f"The accountant {name} could not process these mechanisms and confirms nothing here.")
    return [*sentences, *ALWAYS]
