"""Draw labelled synthetic images from the private model.

Reads: the fine-tuned model; for domain guidance the public one that it started from, and the privacy statement, which
    names both; what other jobs drew, where they shared the work.
Writes: synthetic images with uniform labels, as they are drawn, or a share of them; a picture of some of them.
Privacy: post-processing of the private model, and of the public one, whose query is in the same statement; labels are
    uniform, never from true counts.
Source: Karras et al. 2022, algorithm 1; Lu et al. 2022, algorithm 2; Zhong et al. 2025; Li et al. 2024.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from privimage import cli
from privimage.artifacts import STRETCH, SYNTHETIC, ImageSet, PrivacyStatement, Provenance, Weights, sha256, write_bytes
from privimage.checkpoints import Checkpoint, fingerprint
from privimage.compute import Compute
from privimage.config_checks import unguided
from privimage.diffusion.training import generator_for
from privimage.distributed import ALONE, Group, joined
from privimage.errors import UserError
from privimage.generators import DRAWN_BY
from privimage.generators.contract import Drawer
from privimage.kept import kept_and_made
from privimage.progress import progress
from privimage.reporting.grid import image_grid
from privimage.schema import plain
from privimage.settings import ComputeSettings, SampleSettings
from privimage.shares import WHOLE, Share, add_flags, share_of

VERSION = 1
Stretch = tuple[int, np.ndarray]  # first index, images uint8 [n, H, W, C]


def run(
    drawer: Drawer,
    class_names: list[str],
    settings: SampleSettings,
    seed: int,
    checkpoint: Checkpoint | None,
    group: Group = ALONE,
    share: Share = WHOLE,
) -> tuple[ImageSet, Iterator[Stretch]]:
    """The synthetic set, or a share of it, without its pixels, and those as ``write_stretches`` takes them, as drawn.

    Labels are 0, 1, 2, … in turn: as many of each class as the number allows. Of several processes, the leader has the
    checkpoint and gets the pixels, once all go through them.
    """
    labels = np.arange(settings.num_images) % len(class_names)
    made = unfilled(labels, class_names, drawer.shape, settings, share)

    def draw(first: int) -> Iterator[torch.Tensor]:
        return drawn(drawer, labels, settings, seed, share, first, group)

    stretches = (rows.numpy() for rows in kept_and_made(checkpoint, draw, group))
    return made, numbered(stretches)


def unfilled(
    labels: np.ndarray, class_names: list[str], shape: tuple[int, int, int], settings: SampleSettings, share: Share
) -> ImageSet:
    """The share's images without pixels, which take no memory."""
    rows = share.rows(settings.num_images, settings.batch_size)
    empty = np.broadcast_to(np.uint8(0), (len(rows), *shape))
    return ImageSet(empty, labels[rows.start : rows.stop], tuple(class_names), SYNTHETIC)


def numbered(stretches: Iterable[np.ndarray]) -> Iterator[Stretch]:
    """Each stretch of images with the number of its first image."""
    first = 0
    for pixels in stretches:
        yield first, pixels
        first += len(pixels)


def drawn(
    drawer: Drawer,
    labels: np.ndarray,
    settings: SampleSettings,
    seed: int,
    share: Share = WHOLE,
    first: int = 0,
    group: Group = ALONE,
) -> Iterator[torch.Tensor]:
    """Images of the share of labels [N], uint8 [n, H, W, C] of each batch, from its image ``first`` on."""

    def draw(batch: int) -> torch.Tensor:
        rows = torch.from_numpy(labels[batch * size : (batch + 1) * size])
        return drawer.draw(rows, batch * size, generator_for(seed, batch))

    size = settings.batch_size
    batches = share.batches(-(-len(labels) // size))
    begun = -(-first // size)  # the last batch may be smaller
    stretches = group.each(draw, batches[begun:])
    yield from progress(stretches, "sample", len(batches), begun, size) if group.leads else stretches


def shared_out(paths: Sequence[Path], whole: Provenance) -> Iterator[np.ndarray]:
    """The images of all shares, which lie in these files, a stretch at once.

    Raises:
        UserError: if a file is damaged or is another share.
    """
    for index, path in enumerate(paths):
        made = ImageSet.read(path)
        Share(index, len(paths)).check(made.provenance, whole, path)
        for start in range(0, len(made.labels), STRETCH):
            yield made.images[start : start + STRETCH]


def guide(
    kind: str, weights: Path, pretrained: Path | None, privacy: Path | None, settings: SampleSettings
) -> tuple[Weights | None, dict[str, str]]:
    """The public model that domain guidance pushes images away from, and its hash as a parent of the images.

    ``kind`` is that of the private model ``weights``. There is none for other guidance, and where private
    training started from a model that had learned from no images.

    Raises:
        UserError: if it is wanted and not there, or is not the one of the privacy statement: another one's query may
            not have been paid for.
    """
    if not (settings.guidance == "domain" and settings.guidance_scale):
        return None, {}
    generator = DRAWN_BY[kind]
    if not generator.GUIDED:
        return None, {}
    if pretrained is None or privacy is None:
        raise UserError(
            f"sample got guidance `domain` without {'--privacy' if pretrained else '--pretrained'}; expected the model "
            "that private training started from and the privacy statement."
        )
    stated = PrivacyStatement.read(privacy).provenance.parents
    hashes = {"weights": sha256(weights), "pretrained": sha256(pretrained)}
    if any(stated.get(name) != sha for name, sha in hashes.items()):
        raise UserError(
            f"the statement {privacy} is of other models than {weights} and {pretrained}; give one release's files."
        )
    public = Weights.read(pretrained, generator.PRETRAINED)
    return (public, {"pretrained": hashes["pretrained"]}) if public.facts["num_images"] else (None, {})


def main() -> None:
    """Run the stage from the command line."""
    parser = cli.parser("sample", __doc__, SampleSettings)
    parser.add_argument("--weights", required=True, type=Path, help="the fine-tuned model")
    parser.add_argument("--pretrained", nargs="?", type=Path, help="the public model it started from (domain guidance)")
    parser.add_argument("--privacy", type=Path, help="the privacy statement, which names both (domain guidance)")
    parser.add_argument("--seed", required=True, type=cli.seed, help="seed of the noise that images start from")
    parser.add_argument("--checkpoints", required=True, type=Path, help="folder of checkpoints")
    parser.add_argument("--shards", nargs="*", default=[], type=Path, help="what others drew of all shares, to join")
    parser.add_argument("--images", required=True, type=Path, help="output: synthetic images")
    parser.add_argument("--grid", type=Path, help="output: a picture of some of them")
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision and compilation")
    add_flags(parser)
    args = parser.parse_args()
    share, compute = share_of(parser, args), Compute(cli.settings_from(ComputeSettings, args.compute, "--compute"))
    settings = cli.settings_from(SampleSettings, args.settings)
    if settings.guidance_scale and not settings.guided_levels():
        raise UserError(f"sample is to guide at no noise level: {unguided(settings)}")
    with joined() as group:
        weights = Weights.read(args.weights, *DRAWN_BY)
        names = weights.facts["class_names"]
        public, guided_by = guide(weights.kind, args.weights, args.pretrained, args.privacy, settings)
        drawer = DRAWN_BY[weights.kind].drawer(weights, settings, compute, public)
        parents = {"weights": sha256(args.weights), **guided_by}
        whole = Provenance("sample", VERSION, {**plain(settings), "seed": args.seed}, parents)
        provenance = share.of_whole(whole)
        drawn = {"version": VERSION, "settings": provenance.settings, **provenance.parents}
        name = fingerprint({**drawn, "images": str(args.images)})  # two methods may draw the same at the same time
        checkpoint = Checkpoint(args.checkpoints / name, name) if group.leads else None
        made, pixels = run(drawer, names, settings, args.seed, checkpoint, group, share)
        if args.shards:
            pixels = numbered(shared_out(args.shards, whole))
        if not group.leads:
            for _ in () if args.shards else pixels:  # none arrive here
                pass
            return
        replace(made, provenance=provenance).write_stretches(args.images, pixels)
        if args.grid:
            made = ImageSet.read(args.images)  # memory-mapped: the picture needs few of them
            write_bytes(args.grid, image_grid(made.images, made.labels, made.class_names))
        checkpoint.remove()


if __name__ == "__main__":
    cli.run(main)
