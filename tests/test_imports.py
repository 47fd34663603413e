"""The architecture as sentences that hold: who imports whom, who writes files, who draws secret noise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import privimage
from privimage.cli import STAGES

ROOT = Path(privimage.__file__).parent

# The sentences, as data.
NEVER_IMPORTED = ("snakemake", "pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
NEVER_CALLED = ("eval", "exec", "torch.load", "torch.jit.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load")
MAY_CALL = {("metrics.torchscript", "torch.jit.load")}  # which looks through the program first
STRANGERS = (
    ("diffusion", "privacy"),
    ("privacy", "diffusion"),
    ("gan", "privacy"),
    ("privacy", "gan"),
)  # the first never imports the second
WHERE_DIFFUSION_MEETS_PRIVACY = {"audit", "evolution.loop", "generators.diffusion", "generators.gan",
                                 "generators.latent", "private_gan_training", "private_training",
                                 "public_directions"}  # fmt: skip
WRITERS = {"artifacts", "checkpoints", "data.fetch", "feature_sets", "gpus", "metrics.torchscript", "privacy.ledger",
           "privacy.randomness", "process", "ranks", "releasing.image_folder", "releasing.parquet",
           "shards"}  # fmt: skip
SECRETS = ("cryptography", "secrets", "os.urandom")  # used by privacy/ alone
DATASET_NAMES = ("digits", "glyphs", "mnist", "fashion_mnist", "cifar10", "cifar100", "celeba", "camelyon", "imagenet")
MAY_NAME_DATASETS = ("data.", "settings", "config")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60
LONGER_TRAINING_LOOPS: set[str] = set()  # "module.function"


def module_name(path: Path) -> str:
    """The dotted name below ``privimage``; the package itself is the empty name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
PARTS = [name for name in TREES if name and name not in STAGES]


def imports(tree: ast.AST) -> set[str]:
    """Every dotted name that is imported, at the top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that these tests can read them"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(module: str) -> set[str]:
    """What a module imports of this package, as names below ``privimage``."""
    return {n.removeprefix("privimage.") for n in imports(TREES[module]) if n.startswith("privimage.")}


def of_package(names: set[str], package: str) -> set[str]:
    return {name for name in names if name == package or name.startswith(f"{package}.")}


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call, with the dotted text of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def opens_for_writing(call: ast.Call, called: str) -> bool:
    """Whether a call can change a file. Saving into a buffer in memory does not."""
    last = called.rpartition(".")[2]
    texts = [a.value for a in call.args + [k.value for k in call.keywords] if isinstance(a, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and re.fullmatch(r"[rwaxbt+]{1,3}", text)]
    if called == "os.open":
        return "os.devnull" not in ast.unparse(call) and any(
            flag in ast.unparse(call) for flag in ("O_WRONLY", "O_RDWR", "O_CREAT")
        )
    if last in ("open", "fdopen", "File", "ZipFile"):
        return any(set(mode) & set("wax+") for mode in modes)
    if last in ("write_text", "write_bytes"):  # a path's method; the functions of this name are artifacts'
        return "." in called and not called.startswith("artifacts.")
    makers = ("save_file", "mkstemp", "NamedTemporaryFile", "to_csv", "to_json", "tofile", "savez", "ParquetWriter")
    return last in makers or called in ("torch.save", "np.save", "np.savetxt")


def test_the_tree_was_found() -> None:
    assert {"artifacts", "privacy.accounting", "query", "config"} <= set(TREES)
    assert own_imports("query") >= {"privacy.mechanism", "privacy.mechanism.discrete_gaussian"}


def test_parts_never_import_stages() -> None:
    assert [(p, s) for p in PARTS for s in STAGES if of_package(own_imports(p), s)] == []


def test_stages_never_import_each_other() -> None:
    stages = [stage for stage in STAGES if stage in TREES]
    assert [(a, b) for a in stages for b in STAGES if of_package(own_imports(a), b)] == []


@pytest.mark.parametrize("one, other", STRANGERS)
def test_diffusion_and_privacy_do_not_know_each_other(one, other) -> None:
    assert [m for m in TREES if m.split(".")[0] == one and of_package(own_imports(m), other)] == []


def test_diffusion_and_privacy_meet_only_where_the_table_says() -> None:
    models = {m for m in TREES for package in ("diffusion", "gan") if of_package(own_imports(m), package)}
    both = {m for m in models if of_package(own_imports(m), "privacy")}
    assert both <= WHERE_DIFFUSION_MEETS_PRIVACY


def test_what_is_never_imported() -> None:
    assert [(m, n) for m in TREES for n in NEVER_IMPORTED if of_package(imports(TREES[m]), n)] == []


def test_what_is_never_called() -> None:
    assert {(m, called) for m, tree in TREES.items() for _, called in calls(tree) if called in NEVER_CALLED} == MAY_CALL
    keywords = [(m, ast.unparse(k)) for m, tree in TREES.items() for call, _ in calls(tree) for k in call.keywords]
    assert [(m, text) for m, text in keywords if text in ("allow_pickle=True", "weights_only=False")] == []


def test_config_imports_without_torch() -> None:
    code = "import sys, privimage.config; print('torch' in sys.modules or 'dp_accounting' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_only_the_named_modules_open_files_for_writing() -> None:
    writers = {m for m, tree in TREES.items() for call, called in calls(tree) if opens_for_writing(call, called)}
    assert writers <= WRITERS


def test_only_privacy_uses_secret_randomness() -> None:
    outside = {module: tree for module, tree in TREES.items() if module.split(".")[0] != "privacy"}
    assert [(m, s) for m, tree in outside.items() for s in SECRETS if of_package(imports(tree), s)] == []
    assert [(m, called) for m, tree in outside.items() for _, called in calls(tree) if called in SECRETS] == []


def test_only_privacy_draws_privacy_noise() -> None:
    drawn = [
        (module, called)
        for module, tree in TREES.items()
        if module.split(".")[0] != "privacy"
        for _, called in calls(tree)
        if re.fullmatch(r"(.*\.)?_?key\.(normal|uniform)|SecretKey(\..*)?", called)
    ]
    assert drawn == []


def test_only_data_and_the_configuration_know_dataset_names() -> None:
    named = [
        (module, node.value)
        for module, tree in TREES.items()
        if not f"{module}.".startswith(MAY_NAME_DATASETS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in DATASET_NAMES
    ]
    assert named == []


def test_files_and_functions_are_short() -> None:
    files = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.rglob("*.py")}
    assert {path.name: lines for path, lines in files.items() if lines > MAX_FILE_LINES} == {}
    functions = [
        (f"{module}.{node.name}", node.end_lineno - node.lineno + 1)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = [(name, lines) for name, lines in functions if lines > MAX_FUNCTION_LINES]
    assert [item for item in long if item[0] not in LONGER_TRAINING_LOOPS] == []


@pytest.mark.parametrize(
    "code, writes",
    [
        ("open(p, 'w')", True),
        ("open(p, mode='ab')", True),
        ("open(p)", False),
        ("open(p, 'rb')", False),
        ("path.open('x')", True),
        ("path.write_text(t)", True),
        ("write_text(path, t)", False),
        ("os.open(p, os.O_RDONLY)", False),
        ("os.open(p, os.O_RDWR)", True),
        ("os.open(os.devnull, os.O_WRONLY)", False),
        ("h5py.File(p, 'w')", True),
        ("h5py.File(p, 'r')", False),
        ("ledger.open('query', f, l)", False),
        ("torch.save(x, p)", True),
        ("zipfile.ZipFile(p, 'w')", True),
        ("zipfile.ZipFile(p)", False),
        ("pq.ParquetWriter(p, schema)", True),
    ],
)
def test_the_reader_of_these_tests_knows_writing_when_it_sees_it(code, writes) -> None:
    ((call, called),) = calls(ast.parse(code))
    assert opens_for_writing(call, called) is writes
