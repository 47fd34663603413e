"""The command line: a user's mistake is one sentence and exit code 2; help shows the settings."""

import errno
import os
import subprocess
import sys

import pytest

from privimage import __version__, cli
from privimage.errors import UserError
from privimage.settings import Declared, PretrainSettings, SelectSettings


def test_a_users_mistake_is_one_sentence_and_exit_code_2(capsys):
    def main():
        raise UserError("the file is absent; make it.")

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: the file is absent; make it.\n"


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: 1 / 0)


PRINTS = "import sys; from privimage import cli; from privimage.errors import UserError\n"
MANY = PRINTS + "cli.run(lambda: [print('line', n) for n in range(100_000)])"


def ran(code, **options):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | options.pop("env", {})
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=env, **options)


def test_where_nobody_reads_on_it_ends_without_a_word():
    for code in (MANY, PRINTS + "sys.argv = ['privimage', '--help']; cli.main()"):
        reading, writing = os.pipe()
        os.close(reading)
        done = ran(code, stdout=writing)
        os.close(writing)
        assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, "")


def test_a_broken_pipe_that_is_not_the_output_s_keeps_its_traceback():
    def main():
        raise BrokenPipeError("of a worker")

    with pytest.raises(BrokenPipeError):
        cli.run(main)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("code", [MANY, PRINTS + "cli.run(lambda: print('one line'))"])
def test_an_output_that_is_full_is_one_sentence(code):
    with open("/dev/full", "w") as full:
        done = ran(code, stdout=full)
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: the output cannot be written (No space left on device); make room, or send it elsewhere.\n"
    )


def test_what_the_encoding_lacks_is_printed_as_escapes():
    code = PRINTS + "cli.run(lambda: print('k\u00e4se \u732b'))"
    done = ran(code, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "k\\xe4se \\u732b\n", "")


def test_what_may_not_be_reached_is_one_sentence(capsys):
    def main():
        raise PermissionError(errno.EACCES, "Permission denied", "/a/b")

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: /a/b cannot be reached (Permission denied); mend the permissions.\n"


def test_settings_come_from_json_checked():
    assert cli.settings_from(SelectSettings, '{"classes_per_label": 3}') == SelectSettings(classes_per_label=3)
    with pytest.raises(UserError, match="--settings is not JSON"):
        cli.settings_from(SelectSettings, "{classes_per_label: 3}")
    with pytest.raises(UserError, match="`--settings.classes` is not a setting; did you mean `classes_per_label`"):
        cli.settings_from(SelectSettings, '{"classes": 3}')
    with pytest.raises(UserError, match="`--declared.class_names` is missing"):
        cli.settings_from(Declared, '{"num_images": 3, "delta": 0.1}', "--declared")
    for text in ("3", "[]", "null", '"x"'):
        with pytest.raises(UserError, match="expected a section"):
            cli.settings_from(SelectSettings, text)


def test_help_names_every_setting_with_its_default_and_the_nested_ones():
    text = cli.parser("pretrain", "What it does.", PretrainSettings).format_help()
    assert "What it does." in text and "--settings JSON" in text
    for name in PretrainSettings.__dataclass_fields__:
        assert f"  {name}" in text
    assert "  network.base_channels: Channels at full resolution. [32]" in text
    assert "  num_images: Declared training images. [required]" in cli.parser("query", "", Declared).format_help()


def test_a_budget_is_a_positive_number_or_none_a_seed_not_negative_and_names_a_list_of_texts(capsys):
    assert (cli.budget("2.5"), cli.budget("none")) == (2.5, None)
    assert cli.names('["a b", "1"]') == ("a b", "1")
    made = cli.parser("query", "")
    made.add_argument("--budget", type=cli.budget)
    made.add_argument("--class-names", type=cli.names)
    wrong = [("--budget", text) for text in ("0", "-1", "nan", "inf", "None", "much")]
    made.add_argument("--seed", type=cli.seed)
    assert made.parse_args(["--seed", "0"]).seed == 0
    wrong += [("--seed", text) for text in ("-1", "0.5", "")]
    wrong += [("--class-names", text) for text in ("[]", "[1]", '"ab"', "{}", "ab")]
    for flag, text in wrong:
        with pytest.raises(SystemExit):
            made.parse_args([f"{flag}={text}"])
        assert f"argument {flag}: " in capsys.readouterr().err


def test_flags_are_never_guessed_from_their_beginning(capsys):
    made = cli.parser("select", "", SelectSettings)
    with pytest.raises(SystemExit):
        made.parse_args(["--set", "{}"])
    assert "--settings" in capsys.readouterr().err


def test_privimage_lists_every_stage_with_its_first_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["privimage"])
    cli.main()
    out = capsys.readouterr().out
    assert out.startswith(f"privimage {__version__}\n")
    for stage in cli.STAGES:
        (line,) = [line for line in out.splitlines() if line.startswith(f"  python -m privimage.{stage} ")]
        assert len(line.split(f"privimage.{stage}")[1].strip()) > 20


def test_privimage_says_its_version(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["privimage", "--version"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == __version__
