"""The committed code of the toy protos is what the generator makes of them today."""

from pathlib import Path

import pytest

from toy.regenerate import HERE, generate


def test_generated_code_is_current(tmp_path: Path) -> None:
    generate(tmp_path)
    made = sorted((tmp_path / "toy").iterdir())
    assert len(made) == 6
    for path in made:
        assert path.read_text() == (HERE / path.name).read_text(), f"{path.name}: run toy/regenerate.py"


@pytest.mark.parametrize("name", ["toy.proto", "toy_legacy.proto", "toy_edition.proto"])
def test_protos_are_there(name: str) -> None:
    assert (HERE / name).exists()
