"""The ledger: whatever crashes, charges cover draws, a replay draws the same, and what is finished costs nothing."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from privimage.errors import UserError
from privimage.privacy.accounting import epsilon
from privimage.privacy.event import Event
from privimage.privacy.ledger import Ledger, Release
from privimage.settings import Declared

DECLARED = Declared(num_images=1000, class_names=("a",), delta=1e-5)
STEPS = 3
EVENTS = [Event("poisson_gaussian", 40.0, 0.1, STEPS)]
FINGERPRINT = "0123456789abcdef"


@dataclass(frozen=True)
class Text:
    """An artifact."""

    text: str

    def write(self, path: Path) -> None:
        path.write_text(self.text, encoding="utf-8")


def ledger(folder: Path, budget: float | None = None, **declared) -> Ledger:
    return Ledger(folder / "state", "digits", replace(DECLARED, **declared), budget)


def draw(book: Ledger, log: Path, events=EVENTS, fingerprint=FINGERPRINT, continuing=False) -> str:
    """A stage in small: every draw is noted outside the ledger at the moment it is made."""
    with book.open("finetune", fingerprint, "a label") as release:
        if not release.finished:
            release.reserve(events, continuing)
            values = [take(release, step, log) for step in range(release.reserved_steps if continuing else 0, STEPS)]
            (release.folder / "checkpoint").mkdir(exist_ok=True)
            (release.folder / "checkpoint" / "weights").write_text("leftover")
            release.finish({"result.txt": Text(repr(values))})
        return release.restore("result.txt").read_text()


def take(release: Release, step: int, log: Path) -> float:
    release.reserve_step(step)
    value = float(release.key.normal("gradient", step, shape=1)[0])
    with open(log, "a") as file:
        file.write(json.dumps([release.key.identity, step, value]) + "\n")
    return value


def drawn(log: Path) -> list[tuple[str, int, float]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def key_file(book: Ledger) -> Path:
    return book.folder / "finetune" / FINGERPRINT / "key"


def crash_at(flush: int, after: bool, folder: Path) -> bool:
    """Run the stage in a child that dies just before or after its n-th flush to the disk; False if it got through."""
    child = os.fork()
    if child == 0:
        real, done = os.fsync, 0

        def fsync(handle: int) -> None:
            nonlocal done
            done += 1
            if done == flush and not after:
                os._exit(9)
            real(handle)
            if done == flush:
                os._exit(9)

        os.fsync = fsync
        try:
            draw(ledger(folder), folder / "log")
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_flush_is_covered_replayed_and_charged_once(tmp_path, after) -> None:
    flush = 1
    while crash_at(flush, after, folder := tmp_path / str(flush)):
        book, log = ledger(folder), folder / "log"
        charged = {record["key"] for record in book.odometer()}
        assert {key for key, _, _ in drawn(log)} <= charged, "a draw that nobody had paid for"
        before = drawn(log)
        first = draw(book, log)
        assert len(book.odometer()) == 1, "a replay was charged"
        by_step = {(key, step): value for key, step, value in before}
        assert all(by_step.get((key, step), value) == value for key, step, value in drawn(log)), "a replay drew anew"
        count = len(drawn(log))
        assert draw(ledger(folder), log) == first and len(drawn(log)) == count, "a finished release was drawn again"
        assert len(book.odometer()) == 1
        assert not key_file(book).exists()
        flush += 1
    assert flush > 15  # the whole state machine was walked


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files come from /proc")
def test_key_and_charge_reached_the_disk_in_this_order_before_reserve_returns(tmp_path, monkeypatch) -> None:
    flushed: list[tuple[str, int]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        flushed.append((Path(os.readlink(f"/proc/self/fd/{handle}")).name, os.fstat(handle).st_size))
        real(handle)

    book = ledger(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    with book.open("finetune", FINGERPRINT, "x") as release:
        release.reserve(EVENTS)
    charge = ("odometer.jsonl", (book.folder / "odometer.jsonl").stat().st_size)
    key = flushed.index(("key.new", 40))
    assert flushed[key + 1][0] == FINGERPRINT  # the folder: the key's name is on the disk too
    assert key + 1 < flushed.index(charge)
    assert flushed[flushed.index(charge) + 1][0] == "digits"  # the folder of the odometer


def test_a_step_is_reserved_before_it_is_taken(tmp_path) -> None:
    book = ledger(tmp_path)
    with book.open("finetune", FINGERPRINT, "x") as release:
        release.reserve(EVENTS)
        assert release.reserved_steps == 0
        release.reserve_step(1)
    with book.open("finetune", FINGERPRINT, "x") as release:
        assert release.replayable and release.reserved_steps == 2
        release.reserve(EVENTS)
        release.reserve_step(0)
        assert release.reserved_steps == 2
        with pytest.raises(ValueError, match="step 3 of a release with 3"):
            release.reserve_step(STEPS)


def test_a_step_cannot_be_taken_nor_a_release_finished_before_the_charge(tmp_path) -> None:
    with ledger(tmp_path).open("finetune", FINGERPRINT, "x") as release:
        with pytest.raises(ValueError, match="None reserved steps"):
            release.reserve_step(0)
        with pytest.raises(ValueError, match="before anything was reserved"):
            release.finish({})


def test_a_lost_key_is_charged_again_and_draws_anew(tmp_path) -> None:
    book, log = ledger(tmp_path), tmp_path / "log"
    first = draw(book, log)
    shutil.rmtree(book.folder / "finetune")
    assert draw(book, log) != first
    assert [record["attempt"] for record in book.odometer()] == [1, 2]
    assert book.total_epsilon() == epsilon(EVENTS * 2, 1e-5)


def test_a_new_key_that_an_old_charge_does_not_name_is_charged(tmp_path) -> None:
    """Charged, folder deleted, crash after the new key: the old charge paid for another draw."""
    book, log = ledger(tmp_path), tmp_path / "log"
    draw(book, log)
    shutil.rmtree(book.folder / "finetune")
    with book.open("finetune", FINGERPRINT, "x"):
        pass
    draw(book, log)
    assert len(book.odometer()) == 2 == len({key for key, _, _ in drawn(log)})


def test_continuing_under_a_new_key_takes_only_steps_that_were_not_reserved(tmp_path) -> None:
    book, log = ledger(tmp_path), tmp_path / "log"
    with book.open("finetune", FINGERPRINT, "x") as release:
        release.reserve(EVENTS)
        take(release, 0, log)
    key_file(book).unlink()
    draw(book, log, continuing=True)
    assert len(book.odometer()) == 1
    assert [step for _, step, _ in drawn(log)] == [0, 1, 2]


def test_continuing_what_was_never_charged_is_charged(tmp_path) -> None:
    book = ledger(tmp_path)
    draw(book, tmp_path / "log", continuing=True)
    assert len(book.odometer()) == 1


def test_one_key_serves_one_mechanism(tmp_path) -> None:
    book = ledger(tmp_path)
    with book.open("finetune", FINGERPRINT, "x") as release:
        release.reserve(EVENTS)
    with book.open("finetune", FINGERPRINT, "x") as release, pytest.raises(UserError, match="other noise") as error:
        release.reserve([replace(EVENTS[0], noise_multiplier=39.0)])
    assert FINGERPRINT not in str(error.value)
    assert len(book.odometer()) == 1


def test_other_stages_and_fingerprints_are_other_releases(tmp_path) -> None:
    book, log = ledger(tmp_path), tmp_path / "log"
    assert draw(book, log) != draw(book, log, fingerprint="f" * 16)
    with book.open("query", FINGERPRINT, "x") as release:
        assert not release.finished
    assert len(book.odometer()) == 2


def test_the_odometer_says_what_when_and_for_what(tmp_path) -> None:
    book = ledger(tmp_path)
    draw(book, tmp_path / "log")
    (record,) = book.odometer()
    assert set(record) == {
        "time",
        "dataset",
        "stage",
        "label",
        "fingerprint",
        "attempt",
        "key",
        "private",
        "events",
        "seal",
    }
    assert (record["dataset"], record["stage"], record["label"]) == ("digits", "finetune", "a label")
    assert record["private"] and record["events"] == [event.as_json() for event in EVENTS]
    assert ledger(tmp_path).total_epsilon() == epsilon(EVENTS, 1e-5)


def test_an_empty_ledger_has_cost_nothing(tmp_path) -> None:
    assert ledger(tmp_path).odometer() == [] and ledger(tmp_path).total_epsilon() == 0.0


def test_only_the_owner_can_read_anything(tmp_path) -> None:
    book = ledger(tmp_path)
    draw(book, tmp_path / "log")
    with book.open("finetune", "f" * 16, "x") as release:
        release.reserve(EVENTS)
        release.reserve_step(0)
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_finished_release_keeps_nothing_but_its_artifacts(tmp_path) -> None:
    book = ledger(tmp_path)
    draw(book, tmp_path / "log")
    kept = {path.name for path in key_file(book).parent.iterdir()}
    assert kept == {"result.txt", "finished.json", "begun.json", "charged.json", "release.lock"}
    with book.open("finetune", FINGERPRINT, "x") as release, pytest.raises(ValueError, match="no key"):
        release.reserve(EVENTS)


def test_the_key_of_a_finished_release_is_overwritten(tmp_path) -> None:
    book = ledger(tmp_path)
    with book.open("finetune", FINGERPRINT, "x") as release:
        (tmp_path / "copy").hardlink_to(key_file(book))
        release.reserve(EVENTS)
        release.finish({"result.txt": Text("")})
    assert (tmp_path / "copy").read_bytes() == bytes(40)


def test_artifacts_are_copied_out_byte_for_byte(tmp_path) -> None:
    book = ledger(tmp_path)
    text = draw(book, tmp_path / "log")
    with book.open("finetune", FINGERPRINT, "x") as release:
        release.copy_out({"result.txt": tmp_path / "results" / "there.txt"})
    assert (tmp_path / "results" / "there.txt").read_text() == text


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("other")])
def test_a_damaged_artifact_is_refused_not_redrawn(tmp_path, damage) -> None:
    book = ledger(tmp_path)
    draw(book, tmp_path / "log")
    damage(key_file(book).parent / "result.txt")
    with pytest.raises(UserError, match="gone or damaged") as error:
        draw(book, tmp_path / "log")
    assert FINGERPRINT not in str(error.value)


def test_a_budget_refuses_before_anything_is_charged_and_names_the_numbers(tmp_path) -> None:
    one, two = epsilon(EVENTS, 1e-5), epsilon(EVENTS * 2, 1e-5)
    book, log = ledger(tmp_path, budget=(one + two) / 2), tmp_path / "log"
    draw(book, log)
    with pytest.raises(
        UserError, match=f"from epsilon {one:.4g} to {two:.4g} .*budget of {(one + two) / 2:g}"
    ) as error:
        draw(book, log, fingerprint="f" * 16)
    assert "nothing was drawn" in str(error.value) and len(drawn(log)) == STEPS
    assert len(book.odometer()) == 1
    assert draw(book, log)  # what was paid is still there
    assert draw(ledger(tmp_path, budget=two), log, fingerprint="f" * 16)


HOLD = """
import sys, time
from pathlib import Path
from privimage.privacy.ledger import Ledger
from privimage.settings import Declared
book = Ledger(Path(sys.argv[1]), "digits", Declared(num_images=1000, class_names=("a",), delta=1e-5))
with book.open("finetune", sys.argv[2], "x"):
    print("open", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_dies(tmp_path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "state"), FINGERPRINT], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="being drawn by another process") as error:
            draw(ledger(tmp_path), tmp_path / "log")
        assert FINGERPRINT not in str(error.value)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert draw(ledger(tmp_path), tmp_path / "log")


def test_who_restores_what_is_finished_waits_for_another_who_does(tmp_path) -> None:
    drawn = draw(ledger(tmp_path), tmp_path / "log")
    restored: list[str] = []
    with ledger(tmp_path).open("finetune", FINGERPRINT, "another method") as release:
        other = threading.Thread(target=lambda: restored.append(draw(ledger(tmp_path), tmp_path / "log")))
        other.start()
        other.join(0.3)
        assert other.is_alive() and restored == [] and release.finished
    other.join(30)
    assert restored == [drawn]


@pytest.mark.parametrize("torn", [b'{"time": "2026-01', b"\x00" * 100])
def test_a_torn_last_line_counts_as_nothing_and_is_dropped_by_the_next(tmp_path, torn) -> None:
    book, log = ledger(tmp_path), tmp_path / "log"
    draw(book, log)
    with open(book.folder / "odometer.jsonl", "ab") as file:
        file.write(torn)
    assert len(book.odometer()) == 1
    draw(book, log, fingerprint="f" * 16)
    assert len(book.odometer()) == 2
    assert torn not in (book.folder / "odometer.jsonl").read_bytes()


def test_a_whole_line_without_its_newline_still_counts(tmp_path) -> None:
    book, log = ledger(tmp_path), tmp_path / "log"
    draw(book, log)
    path = book.folder / "odometer.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    draw(book, log, fingerprint="f" * 16)
    assert len(book.odometer()) == 2


@pytest.mark.parametrize(
    "line", [b"not json\n", b"{}\n", b"[]\n", b'{"events": []}\n', b'{"events": [{"mechanism": "gaussian"}]}\n']
)
def test_any_other_damage_stops_the_ledger(tmp_path, line) -> None:
    book, log = ledger(tmp_path), tmp_path / "log"
    draw(book, log)
    path = book.folder / "odometer.jsonl"
    path.write_bytes(line + path.read_bytes())
    with pytest.raises(UserError, match="line 1 that cannot be read"):
        draw(book, log, fingerprint="f" * 16)


def two_charges(folder: Path) -> tuple[Ledger, Path, list[bytes]]:
    """A ledger with two releases, the odometer's file, and its lines."""
    book, log = ledger(folder), folder / "log"
    draw(book, log)
    draw(book, log, fingerprint="f" * 16)
    path = book.folder / "odometer.jsonl"
    return book, path, path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("keep", [[1], [1, 0], [0, 0, 1], [0], []], ids=str)
def test_a_line_that_was_removed_moved_or_doubled_is_found(tmp_path, keep) -> None:
    book, path, lines = two_charges(tmp_path)
    path.write_bytes(b"".join(lines[i] for i in keep))
    with pytest.raises(UserError, match="restore"):
        book.odometer()
    with pytest.raises(UserError, match="restore"):
        draw(book, tmp_path / "log", fingerprint="e" * 16)


def test_lines_of_before_there_were_seals_count_and_are_sealed_by_the_next(tmp_path) -> None:
    book, path, lines = two_charges(tmp_path)
    shutil.rmtree(book.folder / "finetune")
    old = {**json.loads(lines[0]), "key": "of before"}
    del old["seal"]
    path.write_text(json.dumps(old) + "\n")
    assert [record["key"] for record in book.odometer()] == ["of before"]
    draw(book, tmp_path / "log")
    assert len(book.odometer()) == 2
    path.write_text(path.read_text().replace("of before", "of bef0re"))
    with pytest.raises(UserError, match="restore"):
        book.odometer()


def test_an_odometer_that_is_gone_is_missed_by_its_releases(tmp_path) -> None:
    book, path, _ = two_charges(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="lacks 2 charges"):
        book.total_epsilon()


def test_any_flipped_bit_and_any_cut_of_any_file_is_found(tmp_path) -> None:
    """Of a release that is being drawn and of one that is finished; a lost last newline alone costs nothing."""
    book, log = ledger(tmp_path), tmp_path / "log"
    draw(book, log)
    with book.open("finetune", "f" * 16, "begun") as release:
        release.reserve(EVENTS)
        take(release, 0, log)
    before = [record["key"] for record in book.odometer()]
    rng = random.Random(0)
    files = [path for path in sorted(book.folder.rglob("*")) if path.is_file() and path.name != "release.lock"]
    assert {path.name for path in files} == {
        "odometer.jsonl", "key", "reserved_steps", "begun.json", "charged.json", "finished.json", "result.txt"
    }  # fmt: skip
    for path in files:
        good = path.read_bytes()
        for _ in range(25):
            bad, place = bytearray(good), rng.randrange(len(good))
            if rng.random() < 0.7:
                bad[place] ^= 1 << rng.randrange(8)
            else:
                bad = bad[:place]
            path.write_bytes(bad)
            try:
                assert [record["key"] for record in book.odometer()] == before
                with book.open("finetune", FINGERPRINT, "a label") as release:
                    release.restore("result.txt")
                with book.open("finetune", "f" * 16, "begun") as release:
                    assert release.reserved_steps == 1
                    release.reserve(EVENTS)
                found = bad == good.rstrip(b"\n") or path.name == "begun.json"  # of these, nothing was misread
            except UserError:
                found = True
            assert found, (path.name, place)
            path.write_bytes(good)
    assert [record["key"] for record in book.odometer()] == before


def test_what_differs_from_another_draw_of_that_name_is_told_but_no_secret(tmp_path, capsys) -> None:
    book = ledger(tmp_path)
    facts = {"images": "5ec7e7", "version": 2, "settings": {"clip_norm": 1.0, "num_steps": 3}}
    now = {"images": "07be1", "version": 2, "settings": {"clip_norm": 2.0, "num_steps": 3}}
    with book.open("finetune", "a" * 16, "privimage epsilon 1 seed 0", facts) as release:
        release.reserve(EVENTS)
    with book.open("finetune", "a" * 16, "privimage epsilon 1 seed 0", facts):
        pass
    assert capsys.readouterr().err == ""
    with book.open("finetune", "b" * 16, "privimage epsilon 1 seed 0", now):
        told = capsys.readouterr().err
    assert (
        "`privimage epsilon 1 seed 0` was begun before with another value of images, settings.clip_norm 1.0 (now 2.0)"
        in told
    )
    assert "5ec7e7" not in told and "07be1" not in told
    with book.open("finetune", "c" * 16, "privimage epsilon 10 seed 0", now):
        assert capsys.readouterr().err == ""


def test_what_is_said_to_have_been_charged_is_what_the_odometer_holds(tmp_path) -> None:
    book = ledger(tmp_path)
    with book.open("finetune", FINGERPRINT, "x") as release:
        with pytest.raises(UserError, match="has no charge for it"):
            release.charged  # noqa: B018
        release.reserve(EVENTS)
        assert release.charged == EVENTS


def test_reproducible_noise_is_the_same_everywhere_and_never_mixes_with_secret_noise(tmp_path) -> None:
    open_book, secret_book = ledger(tmp_path, reproducible_noise=True), ledger(tmp_path)
    log = tmp_path / "log"
    first = draw(open_book, log)
    assert draw(ledger(tmp_path / "elsewhere", reproducible_noise=True), log) == first
    assert draw(secret_book, log) != first
    assert [record["private"] for record in secret_book.odometer()] == [False, True]


def test_reproducible_noise_has_no_finite_epsilon_and_fits_in_no_budget(tmp_path) -> None:
    book, log = ledger(tmp_path, budget=100.0), tmp_path / "log"
    with pytest.raises(UserError, match="from epsilon 0 to inf .reproducible noise has no finite epsilon. .*of 100;"):
        draw(ledger(tmp_path, budget=100.0, reproducible_noise=True), log)
    draw(book, log)
    assert book.total_epsilon() == epsilon(EVENTS, 1e-5)
    draw(ledger(tmp_path, reproducible_noise=True), log)
    assert book.total_epsilon() == math.inf
    with pytest.raises(UserError, match="from epsilon inf to inf"):
        draw(book, log, fingerprint="f" * 16)
    assert len(book.odometer()) == 2


@pytest.mark.parametrize("name", ["../elsewhere", "", "a b", "-x", "a/b", "a\n"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name) -> None:
    with pytest.raises(UserError, match="the data set is named"):
        Ledger(tmp_path, name, DECLARED)


def test_a_state_folder_that_cannot_be_made_is_a_users_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        Ledger(tmp_path / "file", "digits", DECLARED)
