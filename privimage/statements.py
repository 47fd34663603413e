"""Gather the privacy statements of everything that a run releases of one set, for what each card says of them together.

Reads:   the privacy statement of each release.
Writes:  one file with all of them.
Privacy: post-processing; statements are released as they are.
"""

from __future__ import annotations

from pathlib import Path

from privimage import cli
from privimage.artifacts import PrivacyStatement, Provenance, Stated, Statements, sha256
from privimage.reporting.cells import json_of, refuse_internal

VERSION = 1


def run(text: str) -> Statements:
    """The statements that a flag's JSON names: a list of ``method``, ``seed``, ``privacy`` (a file)."""
    rows = json_of(text, "--cells", list)
    refuse_internal([row["privacy"] for row in rows])
    stated = [Stated(row["method"], int(row["seed"]), PrivacyStatement.read(Path(row["privacy"]))) for row in rows]
    parents = {f"{row['method']}/{row['seed']}/{n}": sha256(Path(row["privacy"])) for n, row in enumerate(rows)}
    return Statements(stated, Provenance("statements", VERSION, parents=parents))


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("statements", __doc__)
    parser.add_argument("--cells", metavar="JSON", required=True, help="releases: method, seed, privacy (a file)")
    parser.add_argument("--statements", type=Path, required=True, help="output: all of them")
    args = parser.parse_args()
    run(args.cells).write(args.statements)


if __name__ == "__main__":
    cli.run(main)
