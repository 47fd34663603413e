"""The table of feature networks: through whose eyes images are compared.

A row's name enters the name of all that is measured with it: `fd_<name>`, `precision_<name>`. Further rows are given
in the configuration's ``networks`` table. Imports without torch, since the workflow reads this.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from privimage.errors import UserError
from privimage.setting import setting

Kind = Literal["classifier", "inception", "inception-legacy", "torchscript", "resnet56"]
IMAGENET = "ImageNet's"


@dataclass(frozen=True)
class Network:
    """A feature network: what it is, where its file lies, and how it wants images."""

    kind: Kind = setting(
        "torchscript",
        "TorchScript that maps float [B, 3, S, S] to [B, D], or a CIFAR ResNet-56 as safetensors; the other kinds are "
        "those of the rows that are always there.",
    )
    path: str | None = setting(None, "File of the network.")
    input_size: int | None = setting(
        None, "Side to which images are resized (bilinear, antialiased); none: as they are.", unit="pixels", minimum=1
    )
    mean: tuple[float, ...] = setting(
        (0.485, 0.456, 0.406), "Subtracted from each channel of images in [0, 1].", source=IMAGENET
    )
    std: tuple[float, ...] = setting((0.229, 0.224, 0.225), "Divides what is left.", above=0, source=IMAGENET)

    @property
    def is_inception(self) -> bool:
        """Whether it is the network of the published FID, with one of its two resizings."""
        return self.kind.startswith("inception")

    @property
    def built_in(self) -> bool:
        """Whether its file is the workflow's concern; otherwise the row's path names it."""
        return self.kind == "classifier" or self.is_inception


NETWORKS: dict[str, Network] = {
    "classifier": Network(kind="classifier"),  # the run's own public classifier
    "inception": Network(kind="inception"),  # clean-fid's, images resized by its `clean` (Parmar et al. 2022)
    "inception-legacy": Network(kind="inception-legacy"),  # the same after its `legacy_tensorflow` (Heusel et al. 2017)
}


def cache_folder() -> Path:
    """Where fetched networks lie, for all projects of this user.

    Raises:
        UserError: if this user has no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "privimage"
    except RuntimeError:
        raise UserError(
            "this user has no home, where fetched networks could lie; set HOME or XDG_CACHE_HOME to a folder."
        ) from None
