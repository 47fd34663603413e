"""The semantic query function back from its file."""

from __future__ import annotations

from privimage.artifacts import ArtifactError, Weights
from privimage.classifiers.resnet import ResNet
from privimage.schema import build
from privimage.settings import ClassifierSettings


def load_classifier(weights: Weights) -> ResNet:
    """The network with its weights, in evaluation mode.

    Raises:
        ArtifactError: if the weights do not fit the network that the file describes.
    """
    facts = weights.network
    settings = build(ClassifierSettings, facts["settings"], "classifier")
    network = ResNet(settings, facts["channels"], facts["num_classes"])
    try:
        network.load_state_dict(weights.group("raw"))
    except RuntimeError as error:
        raise ArtifactError(
            f"the classifier's weights do not fit its network ({error}); rerun `classifier`."
        ) from error
    return network.eval()
