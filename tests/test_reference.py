"""What is generated from the settings is in step with them."""

from pathlib import Path

import pytest

from privimage import reference
from privimage.config import SECTIONS, TABLES
from privimage.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", reference.documents(), ids=str)
def test_the_generated_files_are_in_step(path):
    on_disk = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).exists() else ""
    assert on_disk == reference.documents()[path], f"{path} is out of step; mend it with: {reference.COMMAND}"


def test_the_reference_names_every_setting():
    text = reference.markdown()
    for name, cls in {**SECTIONS, **TABLES}.items():
        part = text.split(f"## `{name}`\n")[1].split("\n## ")[0]
        for key, f in cls.__dataclass_fields__.items():
            assert f"| `{key}` |" in part or f"| `{key}." in part
            assert f.metadata["doc"] in part or f"`{key}." in part


def test_every_row_of_a_table_has_as_many_cells_as_its_head():
    rows = [line for line in reference.markdown().splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {8}


def test_it_writes_into_a_checkout_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["reference"])
    with pytest.raises(UserError, match="is no checkout"):
        reference.main()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").touch()
    reference.main()
    for path, text in reference.documents().items():
        assert (tmp_path / path).read_text(encoding="utf-8") == text
