"""Names that were made to be read as something else: by browsers, Markdown, terminals, spreadsheets, YAML, a shell."""

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from canaries import layers
from PIL import Image

from privimage import classifier, cli, status
from privimage.artifacts import Accountant, ImageSet, PrivacyStatement, Provenance, QueryResult, Subset
from privimage.config import load
from privimage.errors import UserError
from privimage.measurements import Accuracy, Quality
from privimage.methods import METHODS
from privimage.privacy import accounting
from privimage.privacy.event import Event
from privimage.releasing.card import Facts, render
from privimage.releasing.image_folder import folder_names
from privimage.report import run
from privimage.reporting import summary
from privimage.reporting.cells import Cell, Measured, Measurements
from privimage.reporting.grid import image_grid
from privimage.schema import ConfigError, build, plain
from privimage.settings import Declared, FinetuneSettings, ReleaseSettings, SampleSettings, Source

HOSTILE = (
    "<script>alert(4711)<script>",
    '"><img src=x onerror=alert(4711)>',
    "<svg onload=alert(4711)>",
    "{{ 7 * 191 }}{% raise %}",
    "$\\frac{",
    "](javascript:alert(4711)) [x",
    "| a | b\\|",
    "--- !!python/object/apply:os.mkdir [x]",
    "=cmd|' calc'!A0",
    "@SUM(1+1)*cmd",
    "$(touch owned)`touch owned`; touch owned",
    "-rf *",
    "'; alert(4711); '",
    "]]>&lt;script&gt;",
    "CON",
    "..",
)
BREAKING = ("\x1b[2J\x1b]0;owned\x07", "a\nb", "a\rb", "\u202egnp.exe", "\u2028", "a\0b", "\ud800")
EVENT, TRAINING = Event("gaussian", 10.0), Event("poisson_gaussian", 11.0, 0.28, 80)
DECLARED = Declared(num_images=1000, class_names=HOSTILE, delta=1e-4)
NUM = len(HOSTILE)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """An accountant that answers at once."""
    monkeypatch.setattr(accounting, "epsilon", lambda events, delta, **_: 1.0)


def images(source="synthetic"):
    pixels = np.random.default_rng(0).integers(0, 256, (2 * NUM, 8, 8, 1), np.uint8)
    drawn = Provenance("sample", 1, {**plain(SampleSettings()), "seed": 0})
    return ImageSet(pixels, np.arange(2 * NUM) % NUM, HOSTILE, source, drawn)


def statement():
    return PrivacyStatement(
        1.0, 1e-4, 1.0, "add_or_remove_one", [EVENT, TRAINING], 1.9, 1, 1.0, 1000, [Accountant("PLD", "1", 1.0)], True,
        [f"Nothing covers `{HOSTILE[0]}`."], Provenance("finetune", 2, plain(FinetuneSettings()), {"query": "0" * 64}),
    )  # fmt: skip


QUERY = QueryResult(
    np.ones((NUM, NUM)).tolist(), list(HOSTILE), list(HOSTILE), 1, 1.0, EVENT, True, Provenance("query", 1)
)
SUBSET = Subset("query", {name: [name] for name in HOSTILE}, Provenance("select", 1, {}, {"query": "0" * 64}))


class Tags(HTMLParser):
    """The tags of a page, and the attributes that could run something."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.dangers, self.texts = set(), [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            scheme = (value or "").strip().lower()
            if name.startswith("on") or scheme.startswith("javascript:") or name in ("srcdoc", "action", "formaction"):
                self.dangers.append((tag, name, value))
            if name in ("src", "href") and not scheme.startswith(("data:image/png;", "data:image/svg+xml;", "#")):
                self.dangers.append((tag, name, value))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("edition", ["internal", pytest.param("release", marks=pytest.mark.slow)])
def test_names_are_only_names_in_either_edition_of_the_report(edition):
    measured = None
    if edition == "internal":
        one = {"values": [0.5], "mean": 0.5, "std": 0.0}
        accuracy = Accuracy({HOSTILE[0]: one}, 0.5, "last-epoch", 30, 20, Provenance("accuracy", 1))
        quality = Quality("classifier", {"fd_classifier": 1.0}, 30, 90, "train", Provenance("quality", 1))
        found = Measurements(qualities=(quality,), accuracy=accuracy)
        measured = Measured(images("folder"), images("folder"), {"privimage/seed0/eps1": found})
    cell = Cell("privimage", 0, 1.0, statement(), images(), SUBSET)
    html, _ = run("digits", DECLARED, [cell], {"0" * 64: ("default", QUERY)}, measured)
    page = Tags(html)
    assert not page.tags & {"script", "foreignobject", "iframe", "object", "embed", "form", "base"}
    assert page.dangers == []
    assert HOSTILE[0] in "".join(page.texts) and "1337" not in "".join(page.texts)  # shown, and not computed
    assert '<meta name="referrer" content="no-referrer">' in html
    drawings = [content for content in layers(html.encode()) if content.startswith(b"<?xml")]
    tags = [element.tag for drawing in drawings for element in ElementTree.fromstring(drawing).iter()]  # noqa: S314
    assert len(tags) > 100 and not [tag for tag in tags if tag.endswith(("script", "foreignObject", "text"))]


def test_names_are_only_names_on_the_card():
    facts = Facts(
        dataset="digits", method="privimage", seed=0, images=images(), kind="diffusion", folders=folder_names(HOSTILE),
        statement=statement(), subset=SUBSET, query=QUERY, persons=[(2, 2.0)], others=[], joint=None,
        settings=ReleaseSettings(pretty_name="'a': !!python/name:os.system <script>", license="!!binary x"),
    )  # fmt: skip
    card = render(facts)
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["pretty_name"] == "'a': !!python/name:os.system <script>" and front["license"] == "!!binary x"
    assert not re.search(r"<(script|img|svg)", body) and not re.search(r"(?<!\\)\]\(javascript", body)
    rows = [line for line in body.splitlines() if re.match(r"\| \d+ \| ", line)]
    assert len(rows) == NUM and all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_folders_of_a_release_are_safe_to_unpack_and_to_type():
    names = folder_names((*HOSTILE, "a/../../b", "aux", "a" * 300, "ä"))
    assert len({name.lower() for name in names}) == NUM + 4
    assert all(re.fullmatch(r"[\w.+-]{1,90}", name, re.ASCII) and name.strip(".") for name in names)
    assert not any(name.startswith("-") for name in names)


def test_pictures_of_hostile_names_hold_no_text():
    content = image_grid(images().images, images().labels, HOSTILE)
    assert Image.open(io.BytesIO(content)).info == {} and b"alert" not in content


def test_no_field_of_the_summary_is_a_formula():
    cell = Cell("privimage", 0, 1.0, statement(), images(), SUBSET)
    rows = summary.rows_of("digits", [cell], Measured(images("x"), images("x")), {})
    found = [str(value) for row in rows for value in (*row, *row.values())]
    assert found and not [value for value in found if re.match(r"[=+@\t\r]|-\D", value)]
    with pytest.raises(ConfigError, match="cannot be a name"):
        load(configured(methods={"=cmd": {"policy": "none"}}))  # all else in it is numbers and fixed names
    assert not [value for value in csv.reader(METHODS) if value[0][0] in "=+-@"]


def configured(**changes):
    with open("config/config.yaml", encoding="utf-8") as file:
        return {**yaml.safe_load(file), **changes}


@pytest.fixture
def here(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", BREAKING)
@pytest.mark.parametrize("key", ["class_names", "pretty_name", "license", "state_dir", "row", "unknown"])
def test_what_breaks_lines_or_moves_the_cursor_is_no_name(key, name):
    raw = configured()
    digits = raw["datasets"]["digits"]
    if key == "class_names":
        digits["class_names"] = [name, *digits["class_names"][1:]]
    elif key in ("pretty_name", "license"):
        digits["release"] = {key: name}
    elif key == "state_dir":
        raw["state_dir"] = name
    elif key == "row":
        raw["datasets"][name] = digits
    else:
        raw[name] = 1
    with pytest.raises(ConfigError) as error:
        load(raw)
    assert str(error.value).isprintable()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("path", ["", " ", "-rf", "--help", "st{ate}", "{dataset}", "</script>"])
def test_a_state_folder_is_no_flag_and_no_pattern(path):
    with pytest.raises(ConfigError, match="`state_dir`"):
        load(configured(state_dir=path))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("path", ["it's $(touch owned)", "a b;c|d&e", "`touch owned`", "ä/../b"])
def test_a_state_folder_may_be_called_as_it_pleases_its_owner(path):
    assert load(configured(state_dir=path)).state_dir == path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["../digits", "a/b", "-rf", "$(id)", "a b", "a\n", "", ".", "..", "{dataset}", "a;b"])
@pytest.mark.parametrize("table", ["datasets", "publics", "methods", "queries", "networks"])
def test_rows_that_become_folders_are_plain_words(table, name):
    raw = configured()
    row = next(iter(raw.get(table, {}).values()), {})
    with pytest.raises(ConfigError, match="cannot be a name|`networks"):
        load({**raw, table: {**raw.get(table, {}), name: row}})


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", '{"num_epochs": NaN}', '{"num_epochs": 1e999}', "[]"])
def test_a_flag_that_is_no_proper_json_is_one_sentence(monkeypatch, capsys, text):
    flags = ["--train", "x", "--holdout", "x", "--checkpoints", "x", "--weights", "x"]
    monkeypatch.setattr(sys, "argv", ["classifier", "--settings", text, *flags])
    with pytest.raises(SystemExit) as ended:
        cli.run(classifier.main)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1 and told.startswith("error: ")


BEATS = {
    "not JSON": b"!!python/object/apply:os.mkdir [x]",
    "a list": b"[]",
    "a hundred thousand levels": b"[" * 100_000,
    "a number of 5,000 digits": b'{"done": ' + b"9" * 5000 + b"}",
    "a process of another world": json.dumps({"pid": 10**30}),
    "a pid that is all of ours": json.dumps({"pid": -1}),
    "infinite steps": '{"done": Infinity, "pid": 1}',
    "no subject": json.dumps({"output": "results/x"}),
    "a total of zero": json.dumps({"total": 0, "images": 0}),
    "an escape": json.dumps({"output": "results/\x1b[2J/internal/privimage/seed0/eps1/x", "stage": "\x1b]0;owned\x07"}),
}


@pytest.mark.parametrize("name", BEATS)
def test_status_shows_no_escapes_and_falls_over_no_heartbeat(tmp_path, monkeypatch, capsys, name):
    import socket

    given = {"stage": "finetune", "loop": "finetune", "output": "results/digits/x/seed0/eps1/y", "total": 3, "start": 0,
             "done": 1, "images": 4.0, "pid": 1, "host": socket.gethostname(), "started": 1, "updated": 2}  # fmt: skip
    content = BEATS[name]
    if isinstance(content, str):
        content = json.dumps({**given, **json.loads(content)}).encode()
    (tmp_path / "state/status").mkdir(parents=True)
    (tmp_path / "state/status/beat\x1b[2J.json").write_bytes(content)
    for stage in ("train.h5", "internal/train.h5"):
        (tmp_path / "results/\x1b]0;owned\x07\nx" / stage).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results/\x1b]0;owned\x07\nx" / stage).touch()
    ended = None
    try:
        cli.run(lambda: status.main([str(tmp_path / "results")]))
    except SystemExit as error:
        ended = error.code
    printed = capsys.readouterr()
    assert all(line.isprintable() for line in (printed.out + printed.err).splitlines())
    assert "Traceback" not in printed.err and ended in (None, 2)
    assert ended is None or printed.err.count("\n") == 1


@pytest.mark.parametrize("name", BREAKING)
def test_an_error_quotes_anything_without_doing_what_it_says(name):
    assert str(UserError(f"the file {name} is bad.")).isprintable()
    assert str(UserError("two problems:", name)).count("\n") == 1


def test_a_source_path_is_only_a_path(monkeypatch, tmp_path):
    """It travels as JSON; no shell and no pattern sees it."""
    monkeypatch.chdir(tmp_path)
    for path in (*HOSTILE[:-1], "~root/.ssh", "$HOME", "%s%n", "a\0b", "x" * 5000, "/dev/zero", "/proc/self/mem"):
        source = build(Source, {"source": "auto", "path": path, "resolution": 8, "channels": 3})
        from privimage.data import reader

        with pytest.raises(UserError):
            reader("auto")(source, None)
    assert list(tmp_path.iterdir()) == []
