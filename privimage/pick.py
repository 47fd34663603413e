"""Pick the method that does best on a proxy for a sensitive set; or tell how well the proxy would have picked.

Reads:   the table of a proxy's releases; with --real, that of the set it stands for.
Writes:  --picked (YAML: a configuration that runs the picked method); or --ranking (CSV) and --figure (PNG).
Privacy: a proxy is public, and so is what is picked by it. With --real, evaluation, not private.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from privimage import cli
from privimage.artifacts import write_bytes, write_text
from privimage.errors import UserError
from privimage.reporting import ranking
from privimage.reporting.metrics import value_text
from privimage.reporting.study import MEAN
from privimage.reporting.summary import Row, aligned, read_summary, write_rows

VERSION = 1


def run(rows: list[Row]) -> tuple[str, dict[str, float]]:
    """The method with the best mean accuracy over all epsilons and seeds, and the means of all.

    Raises:
        UserError: if there are no releases, or one without accuracies.
    """
    means = ranking.means(rows)
    if not means:
        raise UserError("the table has no releases; expected some; run the proxy first.")
    return max(means, key=means.__getitem__), means


def configuration(dataset: str, method: str, means: dict[str, float], epsilons: list[float]) -> str:
    """The configuration that runs the picked method, with what it was picked by."""
    told = ", ".join(f"{epsilon:g}" for epsilon in epsilons)
    text = f"# Picked on the proxy `{dataset}`, at epsilon {told}, by the mean accuracy of the classifiers:\n"
    for name, mean in sorted(means.items(), key=lambda item: -item[1]):
        text += f"#   {value_text(MEAN, (mean, None)):>7}  {name}\n"
    return text + yaml.safe_dump({"run": {"methods": [method]}}, default_flow_style=None)


def main() -> None:
    """Parse, read, pick or compare, write, print."""
    args = _parse()
    rows = read_summary(args.table)
    if args.real:
        from privimage.reporting.figures.ranking import ranking_figure

        compared = ranking.compared(rows, read_summary(args.real))
        write_bytes(args.figure, ranking_figure(compared, args.dataset))
        write_rows(args.ranking, compared, ranking.COLUMNS)
        print(f"{args.dataset}: how its proxy ranks methods. Not private.\n\n{ranking.ranking_text(compared)}", end="")
        return
    method, means = run(rows)
    epsilons = sorted({row["epsilon"] for row in rows})
    write_text(args.picked, configuration(args.dataset, method, means, epsilons))
    names = sorted(means, key=lambda name: -means[name])
    print(aligned([["method", *names], ["accuracy", *(value_text(MEAN, (means[n], None)) for n in names)]]), end="")
    print(f"\npicked: {method}; its configuration: {args.picked}")


def _parse() -> argparse.Namespace:
    made = cli.parser("pick", __doc__)
    made.add_argument("--dataset", required=True, help="the proxy; with --real, the set that it stands for")
    made.add_argument("--table", type=Path, required=True, help="the proxy's releases")
    made.add_argument("--picked", type=Path, metavar="OUT", help="configuration to write")
    real = made.add_argument_group("how well it would have picked")
    real.add_argument("--real", type=Path, help="releases of the set that it stands for")
    real.add_argument("--ranking", type=Path, metavar="OUT", help="both means of each method as CSV")
    real.add_argument("--figure", type=Path, metavar="OUT", help="one against the other as PNG")
    args = made.parse_args()
    one, other = (args.picked,), (args.real, args.ranking, args.figure)
    if not (all(one) and not any(other)) and not (all(other) and not any(one)):
        raise UserError("pick takes --picked, or --real, --ranking and --figure; give one set whole.")
    return args


if __name__ == "__main__":
    cli.run(main)
