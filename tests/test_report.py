import csv
import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest
from jinja2 import meta

from privimage import cli, membership, report, statements
from privimage.artifacts import (
    Accountant,
    ArtifactError,
    ImageSet,
    PrivacyStatement,
    Provenance,
    QueryResult,
    Subset,
    sha256,
)
from privimage.errors import UserError
from privimage.measurements import Accuracy, Audit, Curve, Membership, Memorisation, Quality, Semantics
from privimage.metrics import roc
from privimage.privacy import accounting, ledger
from privimage.privacy.event import Event, noisy_votes
from privimage.privacy.ledger import Ledger
from privimage.reporting import page, summary
from privimage.reporting.cells import MEASURED, Cell, Measured, Measurements
from privimage.reporting.cost import verdict
from privimage.reporting.gallery import grids_within
from privimage.settings import Declared

OWNERS = ("utility", "confusion", "attacks", "training", "real")  # sections and pictures of the internal edition
CONTEXT = {
    *("dataset", "today", "verdict", "class_names", "num_classes", "releases", "gallery", "queries", "selections"),
    *("budget", "versions", "num_others"),
}
HOSTILE = '<script>alert("0")</script>'
NAMES = (HOSTILE, "b", "$c")
QUERY = noisy_votes(2, 10.0)
TRAINING = {1: Event("poisson_gaussian", 11.0, 0.28, 80), 10: Event("poisson_gaussian", 6.0, 0.28, 80)}
OTHERS = ("memorisation", "membership", "audit", "semantics")
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Which tags stand in the page, whether they are balanced, and what they refer to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.references, self.handlers, self.open = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def declared(**changes) -> Declared:
    return Declared(**{"num_images": 1437, "class_names": NAMES, "delta": 5e-5, **changes})


def images(num_images=30, size=8, channels=1, names=NAMES, seed=0) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (num_images, size, size, channels), dtype=np.uint8)
    return ImageSet(pixels, np.arange(num_images) % len(names), tuple(names), "synthetic")


def statement(target, events, query=None, **changes) -> PrivacyStatement:
    given = {
        "epsilon": target * 0.9994,
        "delta": 5e-5,
        "target_epsilon": float(target),
        "neighboring_relation": "add_or_remove_one",
        "events": events,
        "epsilon_replace_one": target * 2.0,
        "images_per_unit": 1,
        "epsilon_per_unit": target * 0.9994,
        "num_images": 1437,
        "accountants": [Accountant("PLD (dp-accounting)", "0.6.0", 1.0), Accountant("RDP (Opacus)", "1.6.0", 1.25)],
        "private": True,
        "not_covered": ["Anything in `internal` <b>."],
        "provenance": Provenance("finetune", 1, {"noise_levels_per_image": 4}, {"query": query} if query else {}),
    }
    return PrivacyStatement(**{**given, **changes})


def query_result() -> QueryResult:
    votes = np.random.default_rng(0).normal(0, 5, (3, 4)).tolist()
    public = ["<img src=x onerror=alert(1)>", "B", "C", "$D"]
    return QueryResult(votes, list(NAMES), public, 2, 2**0.5, QUERY, True, Provenance("query", 1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every artifact of privimage and scratch at epsilon 1 and 10."""
    query_result().write(tmp_path / "default.json")
    sha = sha256(tmp_path / "default.json")
    for method in ("privimage", "scratch"):
        parents = {"query": sha} if method == "privimage" else {}
        chosen = {name: [public] for name, public in zip(NAMES, query_result().public_class_names)}
        subset = Subset("query", chosen, Provenance("select", 1, parents=parents))
        if method == "scratch":
            subset = Subset("none", {name: [] for name in NAMES}, Provenance("select", 1))
        subset.write(tmp_path / method / "subset.json")
        for epsilon, training in TRAINING.items():
            events = [QUERY, training] if parents else [training]
            statement(epsilon, events, parents.get("query")).write(tmp_path / method / f"{epsilon}.json")
            images().write(tmp_path / method / f"{epsilon}.h5")
    write_measurements(tmp_path / "internal")
    return tmp_path


def write_measurements(measured: Path) -> None:
    """Everything measured on the cells of the fixture, and the real images."""
    for method in ("privimage", "scratch"):
        for epsilon in TRAINING:
            accuracy(0.4321 + epsilon / 100).write(measured / method / f"accuracy{epsilon}.json")
            Curve(("step", "loss"), ((0.0, 1.0), (1.0, 0.5))).write(measured / method / f"curve{epsilon}.csv")
            for key, artifact in measurements().items():
                artifact.write(measured / method / f"{key}{epsilon}.json")
    images(seed=1).write(measured / "train.h5")
    images(seed=2).write(measured / "test.h5")
    accuracy(0.9876).write(measured / "real.json")
    time = measured / "time.tsv"
    time.write_text("s\th:m:s\tmax_rss\n61.5\t0:01:01\t812.0\n", encoding="utf-8")


def accuracy(value: float, protocol: str = "last-epoch") -> Accuracy:
    one = {"values": [value], "mean": value, "std": 0.0}
    confusion = {"cnn": [[8351, 1, 1], [0, 3, 0], [0, 0, 3]]}
    return Accuracy({"logistic": one, "cnn": one}, value, protocol, 30, 360, Provenance("accuracy", 1), confusion)


def measurements() -> dict[str, Quality | Memorisation | Membership | Audit | Semantics]:
    """What else is measured on a release, with numbers that stand nowhere else."""
    made = Provenance("x", 1)
    metrics = {"fd_classifier": 17.77, "precision_classifier": 0.71, "recall_classifier": 0.62}
    quantiles = {"synthetic_to_train": [1.0, 6.543, 9.0], "synthetic_to_test": [1.0, 7.0, 9.0]}
    nearest = [{"synthetic": 1, "train": [2, 3, 4], "distance": 6.121}]
    return {
        "quality": Quality("the classifier", metrics, 30, 1437, "train", made),
        "memorisation": Memorisation("the classifier", 0.5891, [0.5672, 0.6123], quantiles, nearest, 2017, 357, made),
        "membership": Membership(
            0.5381, [0.5262, 0.5493], {"0.05": {"rate": 0.0871, "interval": [0.0763, 0.0982]}},
            [[0.0, 0.0], [0.3, 0.4], [1.0, 1.0]], {"0.1": 0.5381}, 1433, 359, made,
        ),
        "audit": Audit(9.8765, 5e-5, 2.3456, 0.95, 1003, 201, 187, {}, made),
        "semantics": Semantics([[4321.0, 0, 0, 0]] * 3, {n: 0.7654 for n in NAMES}, 0.0432, {}, "no vectors", made),
    }  # fmt: skip


# How those numbers, and the accuracies and counts of the fixture, would read on the page.
SECRETS = ("43.2", "44.2", "53.2", "98.8", "0.4421", "17.77", "0.71", "0.62", "58.9", "56.7", "61.2", "6.54", "0.538",
           "0.526", "8.7 %", "76.5", "4.3 %", "4321", "2,017", "1,433", "8351", "no vectors", "9.877",
           "2.345", "187 of", "1,003")  # fmt: skip


def cells(folder: Path, measured: bool) -> list[dict]:
    rows = []
    for method in ("privimage", "scratch"):
        for epsilon in TRAINING:
            at = folder / method
            row = {"method": method, "seed": "0", "epsilon": str(epsilon), "privacy": f"{at}/{epsilon}.json"}
            row |= {"images": f"{at}/{epsilon}.h5", "subset": f"{at}/subset.json"}
            if measured:
                at = folder / "internal" / method
                row |= {"quality": [f"{at}/quality{epsilon}.json"], "accuracy": f"{at}/accuracy{epsilon}.json"}
                row |= {"curve": f"{at}/curve{epsilon}.csv"}
                row |= {key: f"{at}/{key}{epsilon}.json" for key in OTHERS}
            rows.append(row)
    return rows


def arguments(folder: Path, edition: str) -> list[str]:
    constants = {"num_images": 1437, "class_names": NAMES, "delta": 5e-5}
    given = ["--edition", edition, "--dataset", "digits", "--declared", json.dumps(constants)]
    given += ["--queries", json.dumps([str(folder / "default.json")])]
    given += ["--cells", json.dumps(cells(folder, edition == "internal"))]
    given += ["--html", str(folder / f"{edition}.html")]
    if edition == "internal":
        at = folder / "internal"
        times = {
            "classifier": at / "time.tsv",
            "sample/scratch/seed0/eps1": at / "time.tsv",
            "quality/scratch/seed0/eps1/classifier": at / "time.tsv",
            "accuracy/real/seed0": at / "time.tsv",
            "memorisation/scratch/seed0/eps1": at / "absent.tsv",
        }
        given += ["--real-train", str(at / "train.h5"), "--real-test", str(at / "test.h5")]
        given += ["--real-accuracy", json.dumps([str(at / "real.json")]), "--summary", str(at / "summary.csv")]
        given += ["--benchmarks", json.dumps({label: str(path) for label, path in times.items()})]
    return given


def call(monkeypatch, given: list[str]) -> None:
    monkeypatch.setattr("sys.argv", ["report", *given])
    report.main()


@pytest.fixture
def quick(monkeypatch):
    """An accountant that answers at once."""

    def stub(events, delta, *, relation="add_or_remove_one", images_per_unit=1):
        of_query = [event.query_multiplier for event in events if event.mechanism == "discrete_gaussian"]
        others = [event.noise_multiplier for event in events if event.mechanism != "discrete_gaussian"]
        return sum(1 / multiplier for multiplier in of_query + others) * images_per_unit

    for module in (accounting, ledger):
        monkeypatch.setattr(module, "epsilon", stub)


def test_the_headline_is_the_cost_of_everything_together_and_the_query_counts_once(monkeypatch, folder):
    call(monkeypatch, arguments(folder, "release"))
    html = (folder / "release.html").read_text(encoding="utf-8")
    told = float(re.search(r'class="epsilon">.*?([\d.]+)</p>', html).group(1))
    events = [QUERY, *TRAINING.values(), *TRAINING.values()]
    cost = accounting.epsilon(events, 5e-5)
    assert cost <= told < cost + 0.0011
    replaced = float(re.search(r"if one is replaced</dt><dd>([\d.]+)", html).group(1))
    assert accounting.epsilon(events, 5e-5, relation="replace_one") == pytest.approx(replaced, abs=0.0011)


@pytest.mark.slow
def test_the_headline_counts_what_the_run_releases_beside_the_page(monkeypatch, folder):
    beside = [*cells(folder, False), {**cells(folder, False)[0], "method": "noise.5", "privacy": f"{folder}/more.json"}]
    statement(1, [Event("poisson_gaussian", 3.0, 0.28, 80)]).write(folder / "more.json")
    statements.run(json.dumps(beside)).write(folder / "statements.json")
    given = ["--statements", str(folder / "statements.json")]
    for edition in ("release", "internal"):
        call(monkeypatch, arguments(fresh(folder), edition) + given)
        html = (folder / f"{edition}.html").read_text(encoding="utf-8")
        told = float(re.search(r'class="epsilon">.*?([\d.]+)</p>', html).group(1))
        events = [QUERY, *TRAINING.values(), *TRAINING.values(), Event("poisson_gaussian", 3.0, 0.28, 80)]
        assert 0 <= told - accounting.epsilon(events, 5e-5) < 0.0011
        assert "page, and of 1 release of the same run's ablations beside it, together" in " ".join(html.split())
    statements.run(json.dumps(beside[1:])).write(folder / "statements.json")
    with pytest.raises(UserError, match="lacks the privacy statement of privimage/seed0/eps1; rerun statements"):
        call(monkeypatch, arguments(folder, "release") + given)


def test_the_release_edition_holds_nothing_measured_on_real_images(quick, monkeypatch, folder):
    for poisoned in (folder / "internal").rglob("*.*"):
        poisoned.write_bytes(b"poison")
    call(monkeypatch, arguments(folder, "release"))
    html = (folder / "release.html").read_text(encoding="utf-8")
    text = re.sub(r"data:[\w/+]+;base64,[A-Za-z0-9+/=]+", "", html)  # pictures, which the release edition makes itself
    for secret in ("internal/", "do not publish", "poison", *SECRETS):
        assert secret not in text
    assert not {f'id="{name}"' for name in OWNERS} & set(re.findall(r'id="\w+"', html)) and 'class="owner"' not in html
    assert str(folder) not in html
    call(monkeypatch, arguments(fresh(folder), "internal"))
    owned = (folder / "internal.html").read_text(encoding="utf-8")
    told = ("44.2", "53.2", "98.8", "17.77", "0.71", "0.62", "58.9", "56.7", "61.2", "0.538", "8.7 %", "76.5", "4.3 %")
    told += ("2,017", "1,433", "no vectors", "9.877", "2.345", "187 of 201", "1,003")
    assert [secret for secret in told if secret not in owned] == []
    assert [name for name in OWNERS if f'id="{name}"' not in owned] == []


def test_the_release_template_can_reach_only_what_is_on_the_list():
    """Names, and whatever they hold: nothing that the evaluating stages wrote is among them."""
    made, cells = page.environment(), noisy_cells(2, NAMES)
    source = made.loader.get_source(made, "page.html.j2")[0]
    own = {"synthetic", "query"}  # a macro and a loop's variable, used inside blocks
    assert meta.find_undeclared_variables(made.parse(source)) == CONTEXT | own
    cost = verdict([cell.statement for cell in cells], {"0" * 64: query_result()}, declared())
    given = page.released("d", declared(), cells, {"0" * 64: ("default", query_result())}, cost)
    assert set(given) == CONTEXT
    assert {kind.__module__ for kind in kinds(given)} <= {
        *("builtins", "privimage.artifacts", "privimage.privacy.event", "privimage.reporting.cost"),
    }
    assert not {field.name for field in fields(Cell)} & set(MEASURED)
    grids, shown = grids_within([cell.images for cell in cells], 3, 10**6)
    assert page.render(given, grids, shown, None)
    with pytest.raises(jinja2.UndefinedError, match="internal"):  # the owner's template, without what is the owner's
        made.get_template("internal.html.j2").render(given)


def kinds(value: object) -> set[type]:
    """The types of a value and of everything that it holds."""
    found = {type(value)}
    if is_dataclass(value):
        return found.union(*(kinds(getattr(value, field.name)) for field in fields(value)))
    if isinstance(value, Mapping):
        return found.union(*(kinds(item) for item in value.values()))
    return found.union(*map(kinds, value)) if isinstance(value, (list, tuple)) else found


def test_a_release_holds_the_same_pictures_whatever_was_measured(quick):
    cells = noisy_cells(2, NAMES)
    plain, _ = report.run("d", declared(), cells, {"0" * 64: ("default", query_result())})
    found = {cell.coordinates: Measurements(semantics=measurements()["semantics"]) for cell in cells}
    measured = Measured(train=images(seed=1), test=images(seed=2), cells=found)
    owned, _ = report.run("d", declared(), cells, {"0" * 64: ("default", query_result())}, measured)
    again, _ = report.run("d", declared(), cells, {"0" * 64: ("default", query_result())})
    assert plain == again != owned


@pytest.mark.parametrize("flag", ["real-train", "real-test", "real-accuracy", "benchmarks", "odometer", "summary"])
def test_the_release_edition_takes_no_internal_file(quick, monkeypatch, folder, flag):
    with pytest.raises(UserError, match=f"--{flag}"):
        call(monkeypatch, [*arguments(folder, "release"), f"--{flag}", "x"])
    assert not (folder / "release.html").exists()


def test_the_release_edition_takes_no_measurement_in_a_cell(quick, monkeypatch, folder):
    given = arguments(folder, "release")
    given[given.index("--cells") + 1] = json.dumps(cells(folder, measured=True))
    with pytest.raises(UserError, match="this edition takes method"):
        call(monkeypatch, given)


@pytest.mark.parametrize("key", ["images", "privacy", "subset"])
def test_the_release_edition_reads_nothing_from_an_internal_folder(quick, monkeypatch, folder, key):
    given, rows = arguments(folder, "release"), cells(folder, measured=False)
    rows[0][key] = str(folder / "internal" / "train.h5")
    given[given.index("--cells") + 1] = json.dumps(rows)
    with pytest.raises(UserError, match="folder named internal"):
        call(monkeypatch, given)


def test_the_internal_edition_needs_the_real_images(quick, monkeypatch, folder, capsys):
    given = arguments(folder, "internal")
    del given[given.index("--real-train") : given.index("--real-train") + 2]
    monkeypatch.setattr("sys.argv", ["report", *given])
    with pytest.raises(SystemExit):
        cli.run(report.main)
    assert "--real-train" in capsys.readouterr().err


def test_the_internal_edition_shows_and_tells_what_was_measured(quick, monkeypatch, folder, capsys):
    call(monkeypatch, arguments(folder, "internal"))
    html = (folder / "internal.html").read_text(encoding="utf-8")
    told = ("do not publish", "44.2 %", "53.2 %", "98.8 %", "17.77", "1 min 02 s", "812 MB", "58.9 %", "56.7 to 61.2 %")
    for text in (*told, "nearer than chance explains", "0.538", "0.526 to 0.549", "betrays some members", "76.5 %"):
        assert text in html
    order = ("verdict", "utility", "confusion", "images", "semantics", "attacks", "budget", "training", "rerun")
    assert sorted(order, key=lambda name: html.index(f'id="{name}"')) == list(order)
    table = capsys.readouterr().out
    assert table == summary.table_text(summary.read_summary(folder / "internal" / "summary.csv"))
    assert re.search(r"^scratch +10 +9\.9940 +1 +53\.2 % +53\.2 % +53\.2 % +17\.77$", table, re.MULTILINE)
    assert re.search(r"^scratch +10 +0\.71 +0\.62$", table, re.MULTILINE)
    assert re.search(r"^real +- +- +1 +98\.8 %", table, re.MULTILINE)


def test_the_summary_has_a_row_for_each_release_and_reference(quick, monkeypatch, folder):
    call(monkeypatch, arguments(folder, "internal"))
    with open(folder / "internal" / "summary.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("dataset", "method", "seed", "epsilon", "epsilon_spent", "protocol"),
        *("accuracy_logistic", "accuracy_cnn", "accuracy_mean", "fd_classifier", "precision_classifier"),
        *("recall_classifier", "closer_to_train", "membership_auc", "seconds"),
    ]
    assert [(row["method"], row["epsilon"]) for row in rows] == [
        *(("privimage", "1"), ("privimage", "10"), ("scratch", "1"), ("scratch", "10"), ("real", ""))
    ]
    assert [row["seconds"] for row in rows] == ["", "", "123", "", ""]  # sampling and quality
    assert rows[3]["epsilon_spent"] == "9.994" and rows[3]["accuracy_mean"] == "0.5321"


@pytest.mark.parametrize("edition", ["release", "internal"])
def test_a_page_is_whole_inert_and_self_contained(quick, monkeypatch, folder, edition):
    call(monkeypatch, arguments(folder, edition))
    html = (folder / f"{edition}.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    assert not {"script", "iframe", "object", "embed", "link", "form", "b", "base"} & set(page.tags)
    assert not page.handlers
    assert page.references and all(value.startswith(("data:image/", "#")) for value in page.references)
    assert "<script" not in html and "url(" not in html and "@import" not in html
    assert "&lt;script&gt;alert(&#34;0&#34;)&lt;/script&gt;" in html
    assert "Anything in <code>internal</code> &lt;b&gt;." in html


def unmeasured(folder: Path) -> list[str]:
    """The internal edition of releases on which nothing was measured."""
    given = arguments(folder, "internal")
    given[given.index("--cells") + 1] = json.dumps(cells(folder, measured=False)[:1])
    return given


def test_the_odometer_is_told_or_missed(quick, monkeypatch, folder):
    with Ledger(folder / "state", "digits", declared()).open("query", "f" * 8, "a query") as release:
        release.reserve([QUERY])
    given = unmeasured(folder)
    call(monkeypatch, [*given, "--odometer", str(folder / "state" / "digits" / "odometer.jsonl")])
    html = (folder / "internal.html").read_text(encoding="utf-8")
    assert "Everything ever drawn from the set" in html and "<strong>ε = 0.100</strong>" in html
    call(monkeypatch, [*given, "--odometer", str(folder / "absent" / "odometer.jsonl")])
    assert "The odometer is gone" in (folder / "internal.html").read_text(encoding="utf-8")


def test_an_odometer_with_reproducible_noise_says_that_no_guarantee_exists(quick, monkeypatch, folder):
    with Ledger(folder / "state", "digits", declared(reproducible_noise=True)).open("query", "f" * 8, "x") as release:
        release.reserve([QUERY])
    odometer = str(folder / "state" / "digits" / "odometer.jsonl")
    call(monkeypatch, [*unmeasured(folder), "--odometer", odometer])
    html = (folder / "internal.html").read_text(encoding="utf-8")
    assert "No guarantee exists for this set as a whole" in html and "everything ever drawn from this set" not in html


def fresh(folder: Path) -> Path:
    """The folder with its poisoned measurements made anew."""
    write_measurements(folder / "internal")
    return folder


@pytest.mark.parametrize(
    "protocol, stamped", [("oracle", True), ("last-epoch", False), ("synthetic-validation", False)]
)
def test_an_accuracy_that_was_chosen_on_test_images_is_stamped(quick, protocol, stamped):
    cell = noisy_cells(1, NAMES)[0]
    found = {cell.coordinates: Measurements(accuracy=accuracy(0.5, protocol))}
    html, _ = report.run("d", declared(), [cell], {}, Measured(train=images(), test=images(), cells=found))
    assert ('<p class="stamp">Not valid</p>' in html) is stamped
    assert ("It is a diagnosis, not a result" in html) is stamped


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "nearer than chance explains"),
        ({"control": {"share": 0.58, "interval": [0.45, 0.7], "num_images": 9}}, "nearer than chance explains"),
        ({"control": {"share": 0.58, "interval": [0.55, 0.6], "num_images": 9}}, "nearer, as unseen images are too"),
        ({"interval": [0.48, 0.52]}, "no sign of copying"),
        ({"interval": [0.41, 0.47]}, "nearer to unseen images"),
        ({"interval": [0.48, 0.52], "closest": {"share": 1.0, "interval": [0.9, 1.0]}}, "the closest ones are near"),
        ({"interval": [0.48, 0.52], "weighed": {"share": 0.65, "interval": [0.6, 0.7]}}, "nearer than chance explains"),
        ({"interval": [0.48, 0.52], "weighed": {"share": 0.6, "interval": [0.4, 0.8]}}, "too uncertain to tell</td>"),
        ({"interval": [0.41, 0.92]}, "too uncertain to tell</td>"),
        (
            {"interval": [0.48, 0.52], "copies": {"num_train": 3, "num_test": 0, "p_value": 0.5}},
            "copies of training images</strong>",
        ),
        ({"interval": [0.48, 0.52], "copies": {"num_train": 9, "num_test": 1, "p_value": 0.4}}, "no sign of copying"),
        (
            {"interval": [0.48, 0.52], "copies": {"num_train": 99, "num_test": 1, "p_value": 0.01}},
            "copies of training images</strong>",
        ),
        (
            {
                "interval": [0.48, 0.52],
                "num_duplicates": {"train": 9, "test": 0},
                "copies": {"num_train": 0, "num_test": 0, "p_value": 1.0},
            },
            "no sign of copying",
        ),
    ],
)
def test_what_the_distances_say_in_words(quick, changes, words):
    cell = noisy_cells(1, NAMES)[0]
    found = {cell.coordinates: Measurements(memorisation=replace(measurements()["memorisation"], **changes))}
    html, _ = report.run("d", declared(), [cell], {}, Measured(train=images(), test=images(), cells=found))
    assert words in html


def attacked(attack: Membership, private: bool = True) -> str:
    cell = replace(noisy_cells(1, NAMES)[0], statement=statement(1, [TRAINING[1]], private=private))
    measured = Measured(train=images(), test=images(), cells={cell.coordinates: Measurements(membership=attack)})
    return report.run("d", declared(), [cell], {}, measured)[0]


def test_a_few_members_that_are_found_for_certain_are_told():
    """Of 2,000 members 40 are identified, and the area does not show it."""
    rng = np.random.default_rng(0)
    members, others = rng.normal(size=2000), rng.normal(size=2000)
    members[:40] = 10
    area, interval = roc.area(members, others)
    tpr = {}
    for rate in membership.RATES:
        if len(others) >= membership.RATES[rate]:
            found, around = roc.rate_at(members, others, rate)
            tpr[f"{rate:g}"] = {"rate": found, "interval": around}
    attack = replace(measurements()["membership"], auc=area, auc_interval=interval, tpr=tpr)
    assert interval[0] < 0.5 and "betrays some members" in attacked(attack)
    assert "no better than guessing" in attacked(
        replace(attack, tpr={"0.05": {"rate": 0.05, "interval": [0.04, 0.06]}})
    )


def test_without_a_guarantee_nothing_is_permitted():
    attack = measurements()["membership"]
    assert "nothing is excluded.</p>" not in attacked(attack) and "<td>13." in attacked(attack)
    assert "nothing is excluded.</p>" in attacked(attack, private=False) and "<td>13." not in attacked(
        attack, private=False
    )


@pytest.mark.parametrize("claimed, alarming, capped", [(9.8765, False, True), (2.9, False, False), (2.34, True, False)])
def test_an_audit_alarms_where_it_refutes_the_claim_and_says_what_it_could_have_shown(quick, claimed, alarming, capped):
    cell = noisy_cells(1, NAMES)[0]
    audit = replace(measurements()["audit"], claimed_epsilon=claimed)
    found = {cell.coordinates: Measurements(audit=audit)}
    html, _ = report.run("d", declared(), [cell], {}, Measured(train=images(), test=images(), cells=found))
    assert "lower bound <strong>ε ≥ 2.345</strong>" in html and "187 of 201 guesses right" in html
    assert ("The lower bound is above the claim" in html) is alarming
    assert ("could not have shown more than ε = 4.0" in html) is capped


def test_each_kind_of_row_has_its_own_protocol(quick):
    cell, real = noisy_cells(1, NAMES)[0], accuracy(0.9, "validation on held-out real images")
    found = {cell.coordinates: Measurements(accuracy=accuracy(0.5, "noisy-validation"))}
    measured = Measured(train=images(), test=images(), cells=found, references=[real])
    html, _ = report.run("d", declared(), [cell], {}, measured)
    synthetic, _, rest = html.partition("Trained on synthetic images: ")[2].partition("Trained on real images: ")
    assert "on all sensitive training images, which the generator was trained on" in synthetic
    assert rest.startswith("the epoch that counts was selected on held-out real training images")
    assert "Protocol of at least one row" not in html


def test_missing_weights_are_told_and_make_no_column(quick):
    cell = noisy_cells(1, NAMES)[0]
    absent = Quality("inception", {"fid_inception": None}, 30, 90, "train", Provenance("q", 1), "FID: weights missing")
    found = {cell.coordinates: Measurements(qualities=(measurements()["quality"], absent))}
    html, rows = report.run("d", declared(), [cell], {}, Measured(train=images(), test=images(), cells=found))
    assert "FID: weights missing" in html and "Fréchet distance" in html and "<th>FID" not in html
    assert rows[0]["fid_inception"] is None


def noisy_cells(num_cells: int, names: tuple[str, ...]) -> list[Cell]:
    subset = Subset("none", {name: [] for name in names}, Provenance("select", 1))
    return [
        Cell(f"method{index}", 0, 1.0, statement(1, [TRAINING[1]]), images(200, 64, 3, names, index), subset)
        for index in range(num_cells)
    ]


def test_eight_cells_of_large_noise_stay_below_five_megabytes(quick):
    names = tuple(f"class {index}" for index in range(10))
    real = images(200, 64, 3, names, 99)
    for measured in (None, Measured(train=real, test=real)):
        html, _ = report.run("noise", declared(class_names=names), noisy_cells(8, names), {}, measured)
        assert 1_000_000 < len(html.encode()) < 5_000_000


def test_a_single_class_without_accuracies_is_reported(quick):
    one = declared(class_names=("all",))
    cell = noisy_cells(1, ("all",))[0]
    html, rows = report.run("one", one, [cell], {}, Measured(train=cell.images, test=cell.images))
    assert rows[0]["epsilon_spent"] == cell.statement.epsilon
    assert "No method on this page asked a noisy query" in html
    assert summary.table_text(rows)


def test_a_known_seed_of_noise_stamps_the_page(quick):
    cell = noisy_cells(1, NAMES)[0]
    fine, _ = report.run("d", declared(), [cell], {})
    assert "Not private" not in fine
    broken = Cell(**{**vars(cell), "statement": statement(1, [TRAINING[1]], private=False)})
    stamped, _ = report.run("d", declared(), [cell, broken], {})
    assert '<p class="stamp">Not private</p>' in stamped


def test_a_person_with_several_images_gets_an_epsilon(quick):
    cell = Cell(**{**vars(noisy_cells(1, NAMES)[0]), "statement": statement(1, [TRAINING[1]], images_per_unit=3)})
    html, _ = report.run("d", declared(images_per_unit=3), [cell], {})
    assert "with up to 3 images" in html and f"<dd>{3 / 11:.3f}</dd>" in html


def test_a_query_that_no_release_paid_for_is_added_to_the_headline(quick):
    cell = noisy_cells(1, NAMES)[0]
    html, _ = report.run("d", declared(), [cell], {"0" * 64: ("default", query_result())})
    assert f"</span> {np.ceil(1000 * (1 / 11 + 1 / 10)) / 1000:.3f}</p>" in html


@pytest.mark.parametrize("field", ["not_covered", "accountants", "delta", "epsilon_replace_one"])
def test_a_missing_field_of_a_statement_gives_no_page(quick, monkeypatch, folder, field):
    path = folder / "scratch" / "1.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    del body[field]
    path.write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(ArtifactError, match=field):
        call(monkeypatch, arguments(folder, "release"))
    assert not (folder / "release.html").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"not_covered": []},
        {"accountants": []},
        {"epsilon": float("nan")},
        {"epsilon_replace_one": None},
        {"neighboring_relation": "replace_one"},
        {"delta": 1e-4},
        {"num_images": 1000},
    ],
)
def test_an_empty_or_foreign_statement_gives_no_page(quick, changes):
    cell = Cell(**{**vars(noisy_cells(1, NAMES)[0]), "statement": statement(1, [TRAINING[1]], **changes)})
    with pytest.raises(ArtifactError):
        report.run("d", declared(), [cell], {})


def test_images_of_another_set_are_refused(quick):
    with pytest.raises(ArtifactError, match="classes"):
        report.run("d", declared(class_names=("x", "y")), noisy_cells(1, NAMES), {})


@pytest.mark.parametrize("edition", ["release", "internal"])
def test_real_images_are_not_shown_as_a_release(folder, monkeypatch, edition):
    for path in folder.glob("privimage/*.h5"):
        replace(images(), source="folder").write(path)
    with pytest.raises(UserError, match="expected synthetic ones"):
        call(monkeypatch, arguments(folder, edition))
    assert not (folder / f"{edition}.html").exists()
