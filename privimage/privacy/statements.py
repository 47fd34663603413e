"""Whether a privacy statement says all that it must: without that, nothing is reported and nothing released."""

from __future__ import annotations

import math
from dataclasses import fields

from privimage.artifacts import ArtifactError, PrivacyStatement
from privimage.settings import Declared

RELATION = "add_or_remove_one"


def check_complete(statement: PrivacyStatement, declared: Declared) -> None:
    """Return if no field is empty and the statement is for these declared constants.

    Raises:
        ArtifactError: if it lacks something, or was made for other constants.
    """
    for f in fields(statement):
        value = getattr(statement, f.name)
        empty = value is None or value in ([], "") or (isinstance(value, float) and not math.isfinite(value))
        if empty:
            raise ArtifactError(
                f"a privacy statement has no `{f.name}`; without it nothing is reported or released; rerun finetune."
            )
    if statement.neighboring_relation != RELATION:
        raise ArtifactError(
            f"a privacy statement is for the relation {statement.neighboring_relation!r}; expected {RELATION!r}."
        )
    for name in ("delta", "num_images", "images_per_unit"):
        got, expected = getattr(statement, name), getattr(declared, name)
        if got != expected:
            raise ArtifactError(f"a privacy statement has {name} {got}; {expected} is declared now; rerun finetune.")
