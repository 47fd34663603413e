"""Give each sensitive class the public images to pretrain on, by the method's policy.

Reads:   the names of the public classes and, for the policy `query`, the noisy histogram.
Writes:  the public classes of each sensitive class; no public class is given twice.
Privacy: post-processing of the noisy histogram; the other policies touch nothing sensitive.
Source:  Li et al. 2024.

The paper gives each sensitive class the public classes that its images vote for most. Two sensitive classes
may want the same one. The official code lets them choose in order of their numbers: class 0 takes a public
class even where class 9 has ten times as many votes for it, and renumbering the classes changes the result.
Here the largest cell of the whole histogram is served first: more votes win, and the order of the classes
means nothing. Or all are served at once, by the assignment with the largest sum of noisy votes.
"""

from __future__ import annotations

import sys
from math import log, sqrt
from pathlib import Path
from typing import get_args

import numpy as np
from scipy.optimize import linear_sum_assignment

from privimage import cli
from privimage.artifacts import ImageSet, Provenance, QueryResult, Subset, sha256
from privimage.errors import UserError
from privimage.methods import Policy
from privimage.schema import plain
from privimage.settings import SelectSettings

VERSION = 1


def run(
    policy: Policy,
    public_class_names: tuple[str, ...],
    query: QueryResult | None,
    class_names: tuple[str, ...],
    settings: SelectSettings,
    seed: int,
    provenance: Provenance,
) -> Subset:
    """Public classes for each sensitive class.

    Raises:
        UserError: if policy and query contradict each other, the query belongs to other classes or holds
            numbers that are not finite, or there are too few public classes.
    """
    _check(policy, public_class_names, query, class_names, settings)
    num_classes, count = len(class_names), settings.classes_per_label
    if policy == "query":
        chosen = ASSIGNMENTS[settings.assignment](np.array(query.histogram), count)
    elif policy == "random":
        order = np.random.default_rng(seed).permutation(len(public_class_names))
        chosen = order[: num_classes * count].reshape(num_classes, count).tolist()
    else:
        chosen = [[] for _ in range(num_classes)]
    names = [[public_class_names[index] for index in row] for row in chosen]
    return Subset(policy, dict(zip(class_names, names)), provenance)


def greedy(histogram: np.ndarray, classes_per_label: int) -> list[list[int]]:
    """Disjoint columns for each row: again and again the largest cell whose row and column are still open.

    Shapes: ``histogram`` float [sensitive classes, public classes], with columns enough for all rows.
    """
    remaining = histogram.astype(np.float64)  # [sensitive classes, public classes], a copy
    chosen: list[list[int]] = [[] for _ in remaining]
    for _ in range(len(chosen) * classes_per_label):
        row, column = np.unravel_index(remaining.argmax(), remaining.shape)
        chosen[row].append(int(column))
        remaining[:, column] = -np.inf
        if len(chosen[row]) == classes_per_label:
            remaining[row] = -np.inf
    return chosen


def one_to_one(histogram: np.ndarray, classes_per_label: int) -> list[list[int]]:
    """Disjoint columns for each row, with the largest sum that any assignment of so many has; largest cells first.

    Shapes: as ``greedy``.
    """
    places = np.repeat(histogram, classes_per_label, axis=0)  # [sensitive classes * classes_per_label, public classes]
    columns = linear_sum_assignment(places, maximize=True)[1].reshape(len(histogram), -1)
    return [sorted(row.tolist(), key=lambda column: -counts[column]) for row, counts in zip(columns, histogram)]


ASSIGNMENTS = {"greedy": greedy, "one-to-one": one_to_one}


def by_chance(query: QueryResult, subset: Subset) -> list[str]:
    """For each class whose first public class has no more noisy votes than noise alone would reach, a sentence.

    The largest of n cells of Gaussian noise is about its standard deviation times sqrt(2 ln n). Counts and classes
    have been paid for: what is made of them costs nothing.
    """
    counts = np.array(query.histogram)  # [sensitive classes, public classes]
    reached = sqrt(query.top_k) * query.event.noise_multiplier * sqrt(2 * log(counts.size))
    told = []
    for row, name in zip(counts, query.class_names):
        first = subset.classes[name][0]
        votes = row[query.public_class_names.index(first)]
        if votes < reached:
            told.append(
                f"`{name}` gets `{first}` for {votes:.0f} noisy votes, and noise alone reaches {reached:.0f}: that may "
                "be chance; a query with a smaller noise_multiplier costs more of epsilon and errs less."
            )
    return told


def main() -> None:
    """Parse, read, run, write."""
    parser = cli.parser("select", __doc__, SelectSettings)
    parser.add_argument("--policy", choices=get_args(Policy), required=True, help="the method's policy")
    parser.add_argument("--public", type=Path, required=True, help="public training images")
    parser.add_argument("--query", type=Path, help="the noisy histogram, for the policy `query`")
    parser.add_argument("--class-names", type=cli.names, required=True, metavar="JSON", help="sensitive classes")
    parser.add_argument("--seed", type=cli.seed, required=True, help="of the policy `random`")
    parser.add_argument("--subset", type=Path, required=True, help="public classes of each class (output)")
    args = parser.parse_args()
    settings = cli.settings_from(SelectSettings, args.settings)
    parents = {name: sha256(path) for name, path in (("public", args.public), ("query", args.query)) if path}
    provenance = Provenance("select", VERSION, {**plain(settings), "seed": args.seed}, parents)
    query = QueryResult.read(args.query) if args.query else None
    names = ImageSet.read(args.public).class_names
    subset = run(args.policy, names, query, args.class_names, settings, args.seed, provenance)
    for sentence in by_chance(query, subset) if query else ():
        print(f"warning: {sentence}", file=sys.stderr)
    subset.write(args.subset)


def _check(
    policy: Policy,
    names: tuple[str, ...],
    query: QueryResult | None,
    class_names: tuple[str, ...],
    settings: SelectSettings,
) -> None:
    if (policy == "query") != (query is not None):
        got = "no query" if query is None else "a query"
        raise UserError(
            f"the policy `{policy}` got {got}; the policy `query` needs --query, and the others, which do "
            "not pay for one, take none."
        )
    wanted = settings.classes_per_label * len(class_names)
    if policy in ("query", "random") and wanted > len(names):
        raise UserError(
            f"select.classes_per_label is {settings.classes_per_label}; with {len(class_names)} "
            f"classes it takes {wanted} public classes, and there are {len(names)}; lower it."
        )
    if query is not None:
        _check_query(query, names, class_names)


def _check_query(query: QueryResult, names: tuple[str, ...], class_names: tuple[str, ...]) -> None:
    if tuple(query.class_names) != class_names or tuple(query.public_class_names) != tuple(names):
        raise UserError(
            f"the query's {len(query.class_names)} sensitive and {len(query.public_class_names)} public "
            f"classes are not the {len(class_names)} declared and the {len(names)} public ones; "
            "give the query of this data set and public set."
        )
    shape = (len(class_names), len(names))
    counts = np.array(query.histogram, dtype=np.float64)
    if counts.shape != shape or not np.isfinite(counts).all():
        raise UserError(
            f"the query's histogram has shape {list(counts.shape)} and {np.sum(~np.isfinite(counts))} "
            f"numbers that are not finite; expected {list(shape)} and none; rerun `query`."
        )


if __name__ == "__main__":
    cli.run(main)
