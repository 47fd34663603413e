"""The share of a stage's work that one job does, where several share it: whole batches, which follow each other.

What a job makes of its share is a file like the whole, for the job that joins them; it is gone after that.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from privimage import cli
from privimage.artifacts import Provenance
from privimage.errors import UserError


@dataclass(frozen=True)
class Share:
    """Which of ``of`` shares."""

    index: int = 0
    of: int = 1

    def batches(self, count: int) -> range:
        """The numbers of its batches, of ``count`` in all; shares differ by one batch at most."""
        return range(count * self.index // self.of, count * (self.index + 1) // self.of)

    def rows(self, count: int, batch_size: int) -> range:
        """The rows of its batches, of ``count`` rows in all; the last batch may be smaller."""
        batches = self.batches(-(-count // batch_size))
        return range(batches.start * batch_size, min(batches.stop * batch_size, count))

    def of_whole(self, whole: Provenance) -> Provenance:
        """What a file says that holds this share of what ``whole`` says of the whole."""
        if self.of == 1:
            return whole
        settings = {**whole.settings, "share": [self.index, self.of]}
        return Provenance(whole.stage, whole.stage_version, settings, whole.parents)

    def check(self, found: Provenance | None, whole: Provenance, path: Path) -> None:
        """Return if a file that says ``found`` holds this share.

        Raises:
            UserError: if it holds another, or was made by other settings or from other inputs.
        """
        if found != self.of_whole(whole):
            raise UserError(
                f"{path} is not share {self.index} of {self.of} of what these settings make of these inputs; "
                "delete it and rerun."
            )


WHOLE = Share()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A stage whose work can be shared takes the number of a share, or the files to join."""
    parser.add_argument("--index", type=int, default=0, help="which share of the work to do, from 0")
    parser.add_argument("--of", type=cli.count, default=1, help="number of shares; 1: everything")


def share_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Share:
    """The share that the flags ask for."""
    if not 0 <= args.index < args.of:
        parser.error(f"--index is {args.index}; expected 0 to {args.of - 1}")
    return Share(args.index, args.of)
