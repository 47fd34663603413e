"""Which of several named arrays are the images, and which their labels.

The keys are ``images`` and ``labels``, ``x`` and ``y``, or ``data`` and ``labels`` or ``targets``, with the part before
or behind where there are parts (``x_train``, ``test_images``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from privimage.data.parts import PARTS
from privimage.data.record import printable
from privimage.errors import UserError

PAIRS = (("images", ("labels",)), ("x", ("y",)), ("X", ("y",)), ("data", ("labels", "targets")))
FORMS = ("{name}", "{part}_{name}", "{name}_{part}", "{part}/{name}")  # the last: of a group, or of a file's own name
LABEL_WORDS = {"label", "labels", "y", "class", "classes", "category", "target", "targets"}
Choice = tuple[str | None, str, str | None]  # part, key of the images, key of the labels


def choose(keys: Iterable[str], where: str) -> list[Choice]:
    """The first names that fit, those with labels before those without.

    Raises:
        UserError: if no names fit, one part has labels and another has none, or arrays are left that could be a part
            or the labels.
    """
    known = set(keys)
    found = [choice for form in FORMS for pair in PAIRS if (choice := _matches(form, *pair, known))]
    labelled = [choice for choice in found if any(labels for _, _, labels in choice)]
    if not found:
        shown = printable(", ".join(sorted(known)[:20])) or "none"
        raise UserError(
            f"{where} holds the arrays {shown}; expected images and labels, x and y, or data and labels, with train_ "
            "and test_ before them (or _train and _test behind) where there are parts: rename them."
        )
    choice = (labelled or found)[0]
    bare = [images for _, images, labels in choice if not labels]
    if labelled and bare:
        raise UserError(f"{where} has no labels for {printable(bare[0])}; expected labels for every part or for none.")
    if len({part for part, _, _ in choice}) < len(choice):
        raise UserError(f"{where} spells one part in two ways; expected each part once, rename one array.")
    _check_rest(choice, found, known, where)
    return choice


def _check_rest(choice: Sequence[Choice], found: Sequence[Sequence[Choice]], known: set[str], where: str) -> None:
    """What is not chosen may be neither images of a further part or with labels of their own, nor the labels."""
    images, labels = {key for _, key, _ in choice}, {None, *(key for *_, key in choice)}
    for part, key, its_labels in (match for other in found for match in other):
        if key not in images and (part or choice[0][0] or its_labels not in labels):
            raise UserError(
                f"{where} holds images as {printable(choice[0][1])} and as {printable(key)}; expected one way of "
                "naming them, such as train_images and test_images: rename or remove one."
            )
    strangers = [key for key in sorted(known) if labels == {None} and _sounds_like_labels(key)]
    if strangers:
        raise UserError(
            f"{where} has no labels under a known name, but {printable(strangers[0])}; expected labels or y, named as "
            f"{printable(choice[0][1])} is: rename it, or remove it if it labels nothing."
        )


def _sounds_like_labels(key: str) -> bool:
    words = set(re.split("[^a-z]+", key.lower()))
    return bool(words & LABEL_WORDS) and "names" not in words


def _matches(form: str, images: str, labels: Sequence[str], known: set[str]) -> list[Choice]:
    """What of one pair of names there is, in each of its parts."""
    spellings = PARTS if "{part}" in form else {"": None}
    choice = []
    for spelling, part in spellings.items():
        named_so = [form.format(part=spelling, name=name) for name in labels]
        if (key := form.format(part=spelling, name=images)) in known:
            choice.append((part, key, next((name for name in named_so if name in known), None)))
    return choice
