"""The state folder of before, and what is missing from one: nothing is charged again, nothing is taken twice."""

from __future__ import annotations

import json

import pytest
from test_ledger import EVENTS, FINGERPRINT, draw, ledger, take

from privimage.errors import UserError


def test_a_release_that_was_finished_before_there_were_seals_is_restored(tmp_path) -> None:
    book, log = ledger(tmp_path), tmp_path / "log"
    first = draw(book, log)
    path = book.folder / "finetune" / FINGERPRINT / "finished.json"
    body = json.loads(path.read_text())
    del body["seal"]
    path.write_text(json.dumps(body))
    assert draw(book, log) == first
    assert len(book.odometer()) == 1
    (path.parent / "result.txt").write_text("changed")
    with pytest.raises(UserError, match="gone or damaged"):
        draw(book, log)


def test_a_count_of_steps_that_is_gone_is_missed(tmp_path) -> None:
    """Else steps that were taken would seem not to have been."""
    book, log = ledger(tmp_path), tmp_path / "log"
    with book.open("finetune", FINGERPRINT, "x") as release:
        release.reserve(EVENTS)
        take(release, 0, log)
    (book.folder / "finetune" / FINGERPRINT / "reserved_steps").unlink()
    with (
        book.open("finetune", FINGERPRINT, "x") as release,
        pytest.raises(UserError, match="reserved_steps .* is damaged"),
    ):
        release.reserved_steps  # noqa: B018


def test_no_message_names_the_fingerprint(tmp_path, monkeypatch) -> None:
    book = ledger(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with book.open("finetune", FINGERPRINT, "x") as release:
        release.reserve(EVENTS)
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(UserError, match="cannot be written") as error:
            release.reserve_step(0)
    assert FINGERPRINT not in str(error.value)
