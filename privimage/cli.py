"""The command line that all stages share, and the ``privimage`` command, which lists them."""

from __future__ import annotations

import argparse
import ast
import errno
import io
import json
import math
import os
import select
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from privimage import __version__, ranks, stopping
from privimage.errors import UserError
from privimage.process import confine
from privimage.schema import build

STAGES = ("download", "shard", "preprocess", "classifier", "query", "select", "pretrain", "finetune", "sample",
          "features", "quality", "accuracy", "semantics", "memorisation", "membership", "audit",
          "statements", "release", "report", "tabulate", "pick")  # fmt: skip

BROKEN_PIPE = 141  # what a shell makes of an end by SIGPIPE
FULL = (errno.ENOSPC, errno.EDQUOT)


def parser(stage: str, doc: str, settings: type | None = None) -> argparse.ArgumentParser:
    """A stage's parser; its help is the module's docstring and the table of its settings."""
    made = argparse.ArgumentParser(
        prog=f"python -m privimage.{stage}",
        description=doc,
        epilog=_settings_help(settings) if settings else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if settings:
        made.add_argument("--settings", required=True, metavar="JSON", help="this stage's settings, as below")
    return made


def settings_from(cls: type, text: str, flag: str = "--settings") -> Any:
    """The settings dataclass from a flag's JSON, checked again.

    Raises:
        UserError: if it is not JSON or does not fit.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers and depths that Python refuses
        raise UserError(f"{flag} is not JSON ({error}); expected an object such as {{}}.") from error
    return build(cls, value, flag)


def positive(text: str) -> float:
    """A flag's value as a finite number above 0."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def count(text: str) -> int:
    """A flag's value as a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def seed(text: str) -> int:
    """A flag's value as a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return value


def budget(text: str) -> float | None:
    """A flag's value as an epsilon, or None where it says `none`."""
    return None if text == "none" else positive(text)


def names(text: str) -> tuple[str, ...]:
    """A flag's value, a JSON list of texts, as a tuple."""
    value = json.loads(text)
    if not (isinstance(value, list) and value and all(isinstance(name, str) for name in value)):
        raise argparse.ArgumentTypeError(f'{text} is not a list such as ["cat", "dog"]')
    return tuple(value)


def run(main: Callable[[], Any]) -> Any:
    """Run a stage's ``main``; what the user can mend ends it with one sentence and exit code 2.

    Characters that the terminal's encoding lacks are printed as escapes. Where nobody reads what is printed any further
    (``| head``), it ends without a word. Told to stop, it ends with ``stopping.EXIT_CODE``.
    """
    confine()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        stopping.listen()
        return _printed(main)
    except stopping.Stopped as told:
        _leave(stopping.EXIT_CODE, f"stopped {told}; the same command, given again, goes on from what was saved.")
    except UserError as error:
        _leave(2, str(error))
    except BrokenPipeError:
        if not any(map(_is_broken, (sys.stdout, sys.stderr))):
            raise
        _leave(BROKEN_PIPE)
    except OSError as error:
        from privimage.data.messages import shown

        if isinstance(error, PermissionError) and error.filename:
            _leave(2, f"{shown(error.filename)} cannot be reached ({error.strerror}); mend the permissions.")
        if error.errno not in FULL or error.filename:
            raise
        _leave(2, f"the output cannot be written ({error.strerror}); make room, or send it elsewhere.")


def _printed(main: Callable[[], Any]) -> Any:
    """What ``main`` returns or exits with; all it printed has arrived, or an error says that it has not."""
    try:
        done = main()
    except SystemExit:
        _flush()
        raise
    _flush()
    return done


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _is_broken(stream: TextIO) -> bool:
    """Whether it is a pipe that nobody reads."""
    try:
        pipe = select.poll()
        pipe.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in pipe.poll(0))
    except (AttributeError, OSError, ValueError):  # no stream, or none of the system's
        return False


def _leave(code: int, told: str = "") -> NoReturn:
    """Exit with a sentence, if any; what cannot be printed is dropped, lest it fail once more at the exit."""
    try:
        if told and not ranks.leave_word(told):
            print(f"error: {told}", file=sys.stderr)
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code) from None


def main() -> None:
    """``privimage``: check images, or print the version and what each stage does."""
    code = run(_command)
    if code is not None:
        raise SystemExit(code)


def _command() -> int | None:
    """The exit code of the command that was given, None where the stages were listed."""
    made = argparse.ArgumentParser(prog="privimage", description="Check images, or list the stages of the workflow.")
    made.add_argument("--version", action="version", version=__version__)
    made.add_argument(
        "command",
        nargs="?",
        choices=("check-data", "status"),
        help="check-data PATH: is anything wrong with it?\nstatus RESULTS: what of a run is done or running?",
    )
    args, rest = made.parse_known_args(sys.argv[1:2])
    if args.command == "check-data":
        from privimage import check_data

        return check_data.main(sys.argv[2:])
    if args.command == "status":
        from privimage import status

        return status.main(sys.argv[2:])
    made.parse_args(rest)
    print(f"privimage {__version__}\n")
    for stage in STAGES:
        print(f"  python -m privimage.{stage:13}{_first_line(stage)}")
    print("\nEach takes --help. Together they are run by `snakemake --cores 2` in a checkout.")
    print("Before that: `privimage check-data PATH` says what is wrong with your images.")
    print("Meanwhile: `privimage status results/` says how far it is.")
    return None


def _first_line(stage: str) -> str:
    tree = ast.parse((Path(__file__).parent / f"{stage}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").splitlines()[0]


def _settings_help(cls: type, prefix: str = "") -> str:
    lines = [] if prefix else ["settings:"]
    for f in fields(cls):
        if is_dataclass(f.default):
            lines.append(_settings_help(type(f.default), f"{prefix}{f.name}."))
        else:
            default = "required" if f.default is MISSING else f.default
            lines.append(f"  {prefix}{f.name}: {f.metadata['doc']} [{default}]")
    return "\n".join(lines)
