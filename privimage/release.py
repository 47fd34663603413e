"""Put together what a data owner hands out: images in three formats, weights, the privacy statement and a card.

Reads: released artifacts only: synthetic images, the private model, its privacy statement, the selection of public
    classes, the noisy query if there is one; the privacy statements of the run's other releases.
Writes: a folder, whole or absent, in which every file and key is on a list.
Privacy: post-processing.
Source: Gebru et al. 2021 (Datasheets for Datasets), for what a card says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from privimage import cli
from privimage.artifacts import (
    ArtifactError,
    ImageSet,
    PrivacyStatement,
    QueryResult,
    Stated,
    Statements,
    Subset,
    Weights,
    sha256,
    write_bytes,
    write_text,
)
from privimage.generators import DRAWN_BY
from privimage.privacy import accounting
from privimage.privacy.statements import check_complete
from privimage.releasing import whitelist
from privimage.releasing.card import Facts, render
from privimage.releasing.image_folder import folder_names, write_image_folder
from privimage.releasing.parquet import write_parquet
from privimage.reporting.cells import refuse_internal
from privimage.reporting.cost import verdict
from privimage.reporting.grid import contact_sheet
from privimage.settings import Declared, ReleaseSettings

VERSION = 2
UNFINISHED = ".release-unfinished"  # beside the folder, while it is made
SMALLEST_PERSON = 2  # whose cost is told where the set declares one image a person


@dataclass(frozen=True)
class Released:
    """The artifacts of one release, each of which may leave."""

    images: ImageSet
    weights: Weights
    statement: PrivacyStatement
    subset: Subset
    query: QueryResult | None

    def check(self, declared: Declared, hashes: dict[str, str]) -> None:
        """Return if they belong together and to the declared set, and the statement is complete.

        ``hashes`` are those of the files ``weights``, ``subset`` and, if there is one, ``query``.

        Raises:
            ArtifactError: if they do not.
        """
        check_complete(self.statement, declared)
        names = {"the images": self.images.class_names, "the model": tuple(self.weights.facts["class_names"])}
        names["the subset"] = tuple(self.subset.classes)
        for what, found in names.items():
            if found != declared.class_names:
                raise ArtifactError(f"{what} has other classes than declared; rerun what made it.")
        made_from = self.images.provenance.parents if self.images.provenance else {}
        parents = self.statement.provenance.parents
        if made_from.get("weights") != hashes["weights"]:
            raise ArtifactError("the images were not drawn from the model handed over; rerun sample.")
        if "pretrained" in made_from and made_from["pretrained"] != parents.get("pretrained"):
            raise ArtifactError("the images were guided by another public model than the statement's; rerun sample.")
        handed = {name: sha for name, sha in parents.items() if name not in ("pretrained", "public")}
        if handed != hashes:
            raise ArtifactError("the privacy statement is for another model, subset or query; rerun finetune.")


def run(
    released: Released,
    declared: Declared,
    others: Sequence[Stated],
    folder: Path,
    *,
    dataset: str,
    method: str,
    seed: int,
    settings: ReleaseSettings,
) -> None:
    """The folder holds the release, whole.

    Raises:
        ArtifactError: if anything in it is not on the list of what may leave; then there is no folder.
    """
    made, statement = folder.with_name(UNFINISHED), released.statement
    shutil.rmtree(made, ignore_errors=True)
    try:
        folders = folder_names(declared.class_names)
        _write_images(released, folders, made)
        facts = Facts(
            dataset=dataset,
            method=method,
            seed=seed,
            images=released.images,
            kind=released.weights.kind,
            folders=folders,
            statement=statement,
            subset=released.subset,
            query=released.query,
            persons=_persons(statement),
            others=others,
            joint=verdict([statement, *(other.statement for other in others)], {}, declared) if others else None,
            settings=settings,
        )
        statement.write(made / "privacy.json")
        write_text(made / "README.md", render(facts))
        names = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
        write_text(made / "SHA256SUMS", "".join(f"{sha256(made / name)}  {name}\n" for name in names))
        whitelist.check_folder(made)
        for inner in (made, made / "data"):
            inner.chmod(0o755)  # to be handed out, as its files are
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_images(released: Released, folders: Sequence[str], made: Path) -> None:
    """Images and weights stand in the folder, with no hash but those of files that were handed over."""
    images, names = released.images, released.images.class_names
    write_image_folder(made / "images.zip", images, folders)
    write_parquet(made / "data", made / "images.zip", images, folders)
    classes = [{"label": k, "name": name, "folder": folder} for k, (name, folder) in enumerate(zip(names, folders))]
    write_text(made / "classes.json", json.dumps({"classes": classes}, indent=2, ensure_ascii=False) + "\n")
    made_from = {name: sha for name, sha in released.statement.provenance.parents.items() if name != "weights"}
    made_by = replace(released.statement.provenance, parents=made_from)
    replace(released.weights, provenance=made_by).write(made / "model.safetensors")
    drawn_from = {**images.provenance.parents, "weights": sha256(made / "model.safetensors")}
    replace(images, provenance=replace(images.provenance, parents=drawn_from)).write(made / "images.h5")
    write_bytes(made / "samples.png", contact_sheet(images.images, images.labels, names))


def _persons(statement: PrivacyStatement) -> list[tuple[int, float]]:
    """What a person with several images faces: as many as declared, or the fewest that are several."""
    if statement.images_per_unit > 1:
        return [(statement.images_per_unit, statement.epsilon_per_unit)]
    cost = accounting.epsilon(statement.events, statement.delta, images_per_unit=SMALLEST_PERSON)
    return [(SMALLEST_PERSON, cost)]


def read(args: Any) -> tuple[Released, dict[str, str]]:
    """The artifacts that the flags name, and their hashes; each holds only what may leave.

    Raises:
        UserError: if a file is internal, damaged, or holds a key that is not on the list.
    """
    paths = {"weights": args.weights, "subset": args.subset} | ({"query": args.query} if args.query else {})
    refuse_internal([args.images, args.privacy, *paths.values()])
    whitelist.check_hdf5(args.images)
    whitelist.check_safetensors(args.weights)
    whitelist.check_json(args.privacy, whitelist.STATEMENT)
    whitelist.check_json(args.subset, whitelist.SUBSET)
    if args.query:
        whitelist.check_json(args.query, whitelist.QUERY)
    released = Released(
        ImageSet.read(args.images),
        Weights.read(args.weights, *DRAWN_BY),
        PrivacyStatement.read(args.privacy),
        Subset.read(args.subset),
        QueryResult.read(args.query) if args.query else None,
    )
    return released, {name: sha256(path) for name, path in paths.items()}


def others_of(path: Path | None, own: Stated) -> list[Stated]:
    """The other releases of the run, by the file of all statements; none without it.

    Raises:
        ArtifactError: if this release's statement is not among them.
    """
    stated = Statements.read(path).releases if path else [own]
    if own not in stated:
        raise ArtifactError(f"{path} lacks the privacy statement of this release; rerun statements.")
    return [release for release in stated if release != own]


def main() -> None:
    """Run the stage from the command line."""
    parser = cli.parser("release", __doc__, ReleaseSettings)
    parser.add_argument("--dataset", required=True, help="name of the sensitive set")
    parser.add_argument("--method", required=True, help="row of the methods' table")
    parser.add_argument("--seed", required=True, type=cli.seed, help="seed of the experiment")
    parser.add_argument("--declared", required=True, metavar="JSON", help="public constants of the sensitive set")
    parser.add_argument("--images", required=True, type=Path, help="synthetic images")
    parser.add_argument("--weights", required=True, type=Path, help="the private model")
    parser.add_argument("--privacy", required=True, type=Path, help="its privacy statement")
    parser.add_argument("--subset", required=True, type=Path, help="selection of public classes")
    parser.add_argument("--query", type=Path, help="noisy query, if the method releases one")
    parser.add_argument("--statements", type=Path, help="privacy statements of all that the run releases of the set")
    parser.add_argument("--folder", required=True, type=Path, help="output: the release")
    args = parser.parse_args()
    settings = cli.settings_from(ReleaseSettings, args.settings)
    declared = cli.settings_from(Declared, args.declared, "--declared")
    released, hashes = read(args)
    released.check(declared, hashes)
    others = others_of(args.statements, Stated(args.method, args.seed, released.statement))
    run(
        released,
        declared,
        others,
        args.folder,
        dataset=args.dataset,
        method=args.method,
        seed=args.seed,
        settings=settings,
    )


if __name__ == "__main__":
    cli.run(main)
