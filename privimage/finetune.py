"""Train privately on the sensitive images, from the pretrained model, with noise calibrated from the ledger.

Reads: the sensitive training images; the pretrained model; the noisy query's cost, if the method releases a query;
what will be spent on choosing classifiers' epochs with these images, if it will; public images, if gradients are damped
in directions that these tell.
Writes: the private model; the privacy statement; the training curve (internal: it is computed from sensitive images).
Privacy: DP release, by the generator's mechanism (``generators``). DP-SGD: each step adds Gaussian noise to a sum of
per-image gradients clipped to C, over a Poisson sample; adding or removing one image moves that sum by at most C. The
averaged weights are post-processing.
Source: Li et al. 2024 (query and DP-SGD in one budget); Dockhorn et al. 2023 (K noise levels an image).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from privimage import cli, heartbeat
from privimage.artifacts import ImageSet, Provenance, QueryResult, Subset, Weights, sha256
from privimage.checkpoints import fingerprint
from privimage.compute import Compute
from privimage.distributed import Group, joined
from privimage.errors import UserError
from privimage.generators import GENERATORS, check_processes, facts_of, settings_of
from privimage.generators.contract import PrivateTask
from privimage.privacy import accounting
from privimage.privacy.event import Event, noisy_choice
from privimage.privacy.ledger import Ledger
from privimage.private_training import Mechanism
from privimage.schema import plain
from privimage.settings import ComputeSettings, Declared, FinetuneSettings

VERSION = 2


def paid_query(releases: Sequence[str], query: QueryResult | None, declared: Declared) -> list[Event]:
    """The events that this method's release contains before fine-tuning.

    Raises:
        UserError: if the method declares a query and none was handed over, or the reverse, or its noise is no secret.
    """
    if ("query" in releases) != (query is not None):
        wanted = "a query" if "query" in releases else "no query"
        raise UserError(f"the method declares {wanted}, and --query {'is missing' if query is None else 'was given'}.")
    if query and not query.private and not declared.reproducible_noise:
        raise UserError("the query's noise is reproducible, so it is not private; draw it anew without that setting.")
    return [query.event] if query else []


def check_lineage(pretrained: Weights, subset: Subset, hashes: Mapping[str, str]) -> None:
    """Return if the query that is paid for is the one that chose the public data behind the pretrained model.

    ``hashes`` are those of the files handed over: ``subset``, and ``query`` and ``public`` if there are such. Public
    images are those that the model was pretrained on: nothing else vouches that they are public.

    Raises:
        UserError: if the model was pretrained on another subset or other public images, or the subset made from another
            query or none.
    """
    if pretrained.provenance.parents.get("subset") != hashes["subset"]:
        raise UserError("the pretrained model was made from another --subset; give the one that it was pretrained on.")
    if "public" in hashes and pretrained.provenance.parents.get("public") != hashes["public"]:
        raise UserError("the pretrained model was made from another --public; give the images it was pretrained on.")
    if subset.provenance.parents.get("query") != hashes.get("query"):
        raise UserError("the subset was not made from the --query handed over; its cost is then not what is stated.")


def check_public(task: PrivateTask) -> None:
    """Return if public images are there where gradients are damped by them, and only there.

    Raises:
        UserError: if they are missing, or there for nothing.
    """
    damped = getattr(task.settings, "damped_directions", 0) > 0
    if damped != (task.public is not None):
        why = "gradients are damped in directions that public images tell" if damped else "nothing here looks at them"
        raise UserError(f"--public {'is missing' if damped else 'was given'}, and {why}.")


def check_charged(before: Sequence[Event], ledger: Ledger) -> None:
    """Return if the odometer has a charge for what is released before fine-tuning.

    Raises:
        UserError: if it has none: the sum of all draws would then leave it out.
    """
    charges = [[Event(**event) for event in record["events"]] for record in ledger.odometer()]
    if before and list(before) not in charges:
        raise UserError(
            f"the query handed over was not drawn under the state folder {ledger.folder.parent}: its odometer has no "
            "charge for it. Use the state folder that the query was drawn under, or delete the query's file to draw "
            "it anew, which is charged."
        )


def drawn_as(method: str, alike: Sequence[str], facts: Mapping[str, Any], ledger: Ledger) -> str:
    """The method whose name the draw of these facts has: of all that train alike, one draws, and is charged.

    It is the one that has begun, this method before others; if none has, the first of them.
    """
    for name in (method, *alike):
        if ledger.has_begun("finetune", fingerprint({**facts, "method": name})):
            return name
    return alike[0] if alike else method


def main() -> None:
    """Run the stage from the command line."""
    args = _arguments()
    with joined() as group:
        check_processes(args.generator, group.size)
        _lead(args, group) if group.leads else _assist(args, group)


def _assist(args: Any, group: Group) -> None:
    """This process has computed its share of every step. It has no key, draws nothing and writes nothing."""
    generator, task = GENERATORS[args.generator], _task(args, group)
    if group.numbers([]):  # else there is nothing left to train
        generator.assist(generator.prepare(task), task)


def _lead(args: Any, group: Group) -> None:
    generator, task = GENERATORS[args.generator], _task(args, group)
    settings, declared = task.settings, task.declared
    query = QueryResult.read(args.query) if args.query else None
    before = paid_query(args.releases, query, declared)
    after = [noisy_choice(epsilon) for epsilon in args.validation_epsilons]  # drawn by `accuracy`, paid for here
    parents = {"pretrained": sha256(args.pretrained), "subset": sha256(args.subset)}
    parents |= {"query": sha256(args.query)} if args.query else {}
    parents |= {"public": sha256(args.public)} if args.public else {}
    check_public(task)
    check_lineage(task.pretrained, Subset.read(args.subset), parents)
    unit = generator.event(settings)
    noise_multiplier = accounting.calibrate(
        [*before, *after],
        sampling_probability=unit.sampling_probability,
        num_steps=unit.num_steps,
        epsilon=args.epsilon,
        delta=declared.delta,
        mechanism=unit.mechanism,
    )
    event = replace(unit, noise_multiplier=noise_multiplier)
    facts = {  # what the draw depends on; the query acts through the pretrained model and the noise
        "images": task.images.identity,
        "pretrained": task.pretrained.identity,
        "query": query.identity if query else None,
        "settings": plain(settings),
        "num_images": declared.num_images,
        "noise_multiplier": noise_multiplier,
        "epsilon": args.epsilon,
        "seed": args.seed,
        "version": VERSION,
        **facts_of(args.generator),
    }
    facts |= {"classifier": task.classifier.identity} if task.classifier else {}
    facts |= {"public": task.public.identity} if task.public else {}
    provenance = Provenance("finetune", VERSION, plain(settings), parents)
    statement = accounting.statement([*before, event, *after], declared, args.epsilon, provenance)
    heartbeat.tell(before=[e.as_json() for e in before], training=event.as_json(), delta=declared.delta)
    ledger = Ledger(args.state_dir, args.dataset, declared, args.budget)
    facts["method"] = drawn_as(args.method, args.alike, facts, ledger)
    label = f"{facts['method']} epsilon {args.epsilon:g} seed {args.seed}"
    check_charged(before, ledger)
    with ledger.open("finetune", fingerprint(facts), label, facts) as release:
        group.numbers([] if release.finished else [1])  # do the others have work?
        if not release.finished:
            start = generator.prepare(task)  # before the charge: what it refuses costs nothing
            release.reserve([event], continuing=release.reserved_steps > 0)
            mechanism = Mechanism(settings, noise_multiplier, declared.num_images, release.key, task.compute)
            made, curve = generator.finetune(start, task, mechanism, release)
            weights = Weights(made.kind, made.tensors, made.network, made.facts, provenance)
            release.finish({"weights": weights, "curve": curve})
        if release.charged != [event]:
            raise UserError(f"the odometer has {release.charged} for `{label}`, where {event} was drawn; restore it.")
        release.copy_out({"weights": args.weights, "curve": args.curve})
    named = replace(provenance, parents={**parents, "weights": sha256(args.weights)})
    replace(statement, provenance=named).write(args.privacy)


def _task(args: Any, group: Group) -> PrivateTask:
    generator = GENERATORS[args.generator]
    if (args.classifier is not None) != generator.READS_CLASSIFIER:
        raise UserError(
            f"the generator `{args.generator}` {'needs' if generator.READS_CLASSIFIER else 'takes no'} --classifier."
        )
    return PrivateTask(
        pretrained=Weights.read(args.pretrained, generator.PRETRAINED),
        images=ImageSet.read(args.images),
        declared=cli.settings_from(Declared, args.declared, "--declared"),
        settings=cli.settings_from(settings_of(args.generator, "finetune", FinetuneSettings), args.settings),
        seed=args.seed,
        classifier=Weights.read(args.classifier, "classifier") if args.classifier else None,
        public=ImageSet.read(args.public) if args.public else None,
        compute=Compute(cli.settings_from(ComputeSettings, args.compute, "--compute")),
        group=group,
    )


def _arguments() -> Any:
    parser = cli.parser("finetune", __doc__, FinetuneSettings)
    parser.add_argument("--dataset", required=True, help="name of the sensitive set, for the ledger")
    parser.add_argument("--method", required=True, help="row of the methods' table")
    parser.add_argument("--alike", nargs="*", default=[], help="all methods that train alike; the first draws for all")
    parser.add_argument("--epsilon", required=True, type=cli.positive, help="target of everything this method releases")
    parser.add_argument("--seed", required=True, type=cli.seed, help="seed of the experiment; privacy noise ignores it")
    parser.add_argument(
        "--releases", required=True, nargs="+", choices=("query", "finetune"), help="what the method releases"
    )
    parser.add_argument("--images", required=True, type=Path, help="sensitive training images")
    parser.add_argument("--pretrained", required=True, type=Path, help="pretrained model")
    parser.add_argument("--subset", required=True, type=Path, help="selection of public classes")
    parser.add_argument("--generator", choices=tuple(GENERATORS), default="diffusion", help="what is trained")
    parser.add_argument("--classifier", type=Path, help="public classifier, for a generator that reads it")
    parser.add_argument("--public", type=Path, help="public training images, if gradients are damped by them")
    parser.add_argument("--query", type=Path, help="noisy query, if the method releases one")
    parser.add_argument(
        "--validation-epsilons",
        nargs="+",
        type=cli.positive,
        default=[],
        help="what each later choice of a classifier's epoch by the sensitive images will cost",
    )
    parser.add_argument("--declared", required=True, metavar="JSON", help="public constants of the sensitive set")
    parser.add_argument("--budget", type=cli.budget, help="epsilon of everything ever drawn from the set, or `none`")
    parser.add_argument(
        "--state-dir", required=True, type=Path, help="keys, checkpoints and odometer; outlives results"
    )
    parser.add_argument("--compute", metavar="JSON", default="{}", help="precision, microbatch and the like")
    parser.add_argument("--weights", required=True, type=Path, help="output: the private model")
    parser.add_argument("--privacy", required=True, type=Path, help="output: the privacy statement")
    parser.add_argument("--curve", required=True, type=Path, help="output: training curve, internal")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
