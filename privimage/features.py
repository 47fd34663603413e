"""Show real images to a feature network, once for all that is compared with them.

Reads:   real images of both splits, the network's file or what `download` wrote of Inception; what other jobs saw,
         where they shared the work.
Writes:  features, logits, mean and covariance of each split (HDF5), or a share of them, or why there are none;
         checksums beside them.
Privacy: evaluation, not private: features of real images are as sensitive as the images.
Source:  resizing for Inception by clean-fid (Parmar et al. 2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, sha256
from privimage.checkpoints import Checkpoint, fingerprint
from privimage.distributed import ALONE, Group, joined
from privimage.evaluation_settings import FeaturesSettings
from privimage.feature_sets import WEIGHTS_MISSING, FeatureSet
from privimage.kept import kept_and_made
from privimage.metrics.extraction import chosen, gathered, looked_at, packed
from privimage.metrics.feature_networks import FeatureNetwork, load_network, why_missing
from privimage.schema import plain
from privimage.shares import WHOLE, Share, add_flags, share_of

VERSION = 2
SPLITS = ("train", "test")


def run(
    images: ImageSet,
    split: str,
    network: FeatureNetwork,
    settings: FeaturesSettings,
    whole: Provenance,
    checkpoint: Checkpoint | None,
    group: Group = ALONE,
    share: Share = WHOLE,
    shards: Sequence[Path] = (),
) -> FeatureSet | None:
    """What the network sees in one split, or in a share of it, or saw in its shares, which lie in these files.

    Of several processes, the leader has the checkpoint and gets the result.
    """
    what = f"{split} images"
    index = chosen(images, settings.num_reference, what)
    rows = share.rows(len(index), network.batch_size)
    index = index[rows.start : rows.stop]
    if shards:
        stretches = shared_out(shards, whole, index, network.batch_size) if group.leads else iter(())
    else:
        stretches = kept_and_made(checkpoint, lambda n: looked_at(network, images, index, what, n, group), group)
    if not group.leads:
        for _ in stretches:  # none arrive here
            pass
        return None
    return gathered(network, images, index, stretches, share.of_whole(whole), is_share=share.of > 1)


def shared_out(paths: Sequence[Path], whole: Provenance, index: np.ndarray, batch_size: int) -> Iterator[torch.Tensor]:
    """What was seen in each share of the images at ``index``, packed.

    Raises:
        UserError: if a file is damaged or is another share.
    """
    for number, path in enumerate(paths):
        seen, share = FeatureSet.read(path), Share(number, len(paths))
        rows = share.rows(len(index), batch_size)
        same = np.array_equal(seen.index, index[rows.start : rows.stop])
        share.check(seen.provenance if same else None, whole, path)
        if len(seen):
            yield packed(torch.from_numpy(seen.features), torch.from_numpy(seen.logits))


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("features", __doc__, FeaturesSettings)
    parser.add_argument("--network", required=True, help="the network's name")
    parser.add_argument("--weights", type=Path, required=True, help="its file, or what `download` wrote of Inception")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder of checkpoints")
    add_flags(parser)
    for split in SPLITS:
        shards = f"--{split}-shards"
        parser.add_argument(f"--{split}", type=Path, required=True, help=f"real {split} images")
        parser.add_argument(shards, nargs="*", default=[], type=Path, help="what others saw in all shares, to join")
        parser.add_argument(f"--{split}-features", type=Path, required=True, help="their features (output)")
    args = parser.parse_args()
    share, settings = share_of(parser, args), cli.settings_from(FeaturesSettings, args.settings)
    with joined() as group:
        network = load_network(args.network, settings.network, args.weights)
        whole = Provenance("features", VERSION, plain(settings), {"network": network.sha256} if network else {})
        for split in SPLITS:
            path, shards, output = (getattr(args, f"{split}{end}") for end in ("", "_shards", "_features"))
            images = ImageSet.read(path)
            if network is None:
                note = f"{WEIGHTS_MISSING} ({why_missing(settings.network, args.weights).rstrip('.')})"
                if group.leads:
                    FeatureSet.empty(args.network, note, images.class_names, whole).write(output)
                continue
            made_of = {"settings": share.of_whole(whole).settings, "images": sha256(path), "split": split}
            name = fingerprint({"version": VERSION, **made_of, **whole.parents})
            shown = args.checkpoints  # a fingerprint of sensitive images names the folder
            checkpoint = Checkpoint(args.checkpoints / name, name, shown) if group.leads else None
            found = run(images, split, network, settings, whole, checkpoint, group, share, shards)
            if found is not None:
                found.write(output)
                checkpoint.remove()


if __name__ == "__main__":
    cli.run(main)
