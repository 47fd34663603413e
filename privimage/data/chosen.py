"""A source, or some of its classes: with others held out, a public set can stand in for a sensitive one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from privimage.data import reader
from privimage.data.classes import in_declared_order
from privimage.data.record import Collection, Note, Problem, Record
from privimage.errors import UserError
from privimage.settings import Source


def read(source: Source, class_names: Sequence[str] | None = None) -> Collection:
    """The images of the source's `classes`, or of all but those that it is `without_classes`; of all, if it names none.

    ``class_names`` are those declared of a sensitive set. A public row's `num_classes` counts what is left.

    Raises:
        UserError: if a named class is not there, or what is left is not what was declared.
    """
    named = source.classes or source.without_classes
    if named is None:
        return reader(source.source)(source, class_names)
    whole_row = source.classes or source.num_classes is None  # which says nothing of how many there are in all
    drawn = None if whole_row else source.num_classes + len(set(source.without_classes))
    whole = reader(source.source)(replace(source, num_classes=drawn), None)
    missing = [name for name in named if name not in whole.class_names]
    if missing:
        raise UserError(
            f"{whole.form} has no class `{missing[0]}`, which the row's `classes` or `without_classes` names; expected "
            f"some of its {len(whole.class_names)}, such as `{whole.class_names[0]}`."
        )
    left = [name for name in whole.class_names if (name in named) == bool(source.classes)]
    names = in_declared_order(left, source, class_names, f"what the row takes of {whole.form}")
    label_of = {whole.class_names.index(name): label for label, name in enumerate(names)}

    def items() -> Iterator[Record | Problem | Note]:
        for item in whole.items():
            if not isinstance(item, Record):
                yield item
            elif item.label in label_of:
                yield item._replace(label=label_of[item.label])

    return Collection(f"{len(left)} classes of {whole.form}", names, items)
