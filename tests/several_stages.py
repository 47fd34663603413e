"""The stage `finetune` on small inputs, by its command line, for tests of how it is started."""

from __future__ import annotations

import sys
from pathlib import Path

from checkout import ROOT

from privimage.artifacts import Weights
from privimage.privacy.ledger import Ledger
from privimage.settings import Declared

sys.path.append(str(ROOT / "tests" / "faults"))

from stages import DECLARED, QUERY, stages, tuples, write_inputs  # noqa: E402


def finetune_words(folder: Path, **settings) -> list[str]:
    """The command line, on inputs that are in the folder, of which the query was paid for."""
    write_inputs(folder)
    with Ledger(folder / "state", "set", Declared(**tuples(DECLARED))).open("query", "q" * 32, "query") as release:
        release.reserve([QUERY])
    return stages(folder)["finetune"].words(folder, settings=settings)


def result(folder: Path) -> Weights:
    """The weights that the stage left."""
    return Weights.read(folder / "finetuned", "diffusion")
