"""The file of what a network saw in a set of images. Of real images, it stays inside."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from privimage.artifacts import (
    ArtifactError,
    Provenance,
    check_sha256,
    reading,
    reserve,
    sha256,
    write_file,
    write_text,
)

WEIGHTS_MISSING = "FID: weights missing, see README"


@dataclass(frozen=True)
class FeatureSet:
    """Features of images by one network (HDF5). ``<file>.sha256`` beside it holds the checksum.

    The images stand in a fixed random order that knows no class, so that the first n are a fair sample of them;
    ``index`` says which image each is. ``network_sha256`` is the checksum of the network's file. A set without images
    says in ``note`` why it has none. A share of a set, which is still to be joined, has no moments: [0] and [0, 0].

    Shapes: ``features`` float32 [N, D]; ``logits`` float32 [N, K], K is 0 where the network has none; ``labels`` and
    ``index`` int64 [N]; ``mean`` float64 [D]; ``covariance`` float64 [D, D].
    """

    network: str
    network_sha256: str
    resizing: str
    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    class_names: tuple[str, ...]
    note: str = ""
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        count, width = self.features.shape
        rows = {len(self.logits), len(self.labels), len(self.index)}
        moments = self.mean.shape, self.covariance.shape
        if rows != {count} or moments not in (((width,), (width, width)), ((0,), (0, 0))):
            raise ArtifactError(
                f"a feature set got features {list(self.features.shape)}, logits {list(self.logits.shape)}, labels "
                f"{list(self.labels.shape)}, mean {list(self.mean.shape)} and covariance "
                f"{list(self.covariance.shape)}; expected [N, D], [N, K], [N], [D] and [D, D]."
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def counts(self) -> list[int]:
        """Images of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names)).tolist()

    @classmethod
    def empty(cls, network: str, note: str, class_names: tuple[str, ...], provenance: Provenance) -> FeatureSet:
        """A set without images, and why."""
        none, no_rows = np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
        moments = np.zeros(0), np.zeros((0, 0))
        return cls(network, "", "", none, none, no_rows, no_rows, *moments, class_names, note, provenance)

    def write(self, path: Path) -> None:
        """The file and its checksum exist."""
        import h5py

        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        made_by = asdict(self.provenance) if self.provenance else None
        rest = {name: value for name, value in vars(self).items() if name not in arrays}
        meta = json.dumps({**rest, "provenance": made_by, "counts": self.counts})

        def fill(temporary: Path) -> None:
            reserve(temporary, sum(array.nbytes for array in arrays.values()) + 1_000_000)
            with h5py.File(temporary, "w") as file:
                for name, array in arrays.items():
                    file.create_dataset(name, data=array)
                file.attrs["metadata"] = meta

        write_file(path, fill)
        write_text(Path(f"{path}.sha256"), f"{sha256(path)}  {path.name}\n")

    @classmethod
    def read(cls, path: Path) -> FeatureSet:
        """The features.

        Raises:
            ArtifactError: if the file is absent, damaged or of another kind.
        """
        import h5py

        from privimage.hdf5_arrays import array

        check_sha256(path)
        with reading(path), h5py.File(path, "r") as file:
            meta = json.loads(file.attrs["metadata"])
            arrays = {name: array(file, name)[:] for name in file}
            del meta["counts"]
            made_by = Provenance(**meta["provenance"]) if meta["provenance"] else None
            return cls(**{**meta, **arrays, "class_names": tuple(meta["class_names"]), "provenance": made_by})
