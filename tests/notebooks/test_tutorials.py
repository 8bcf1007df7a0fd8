"""What every tutorial keeps to: short, with outputs to learn from, nothing of the machine it ran on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
TUTORIALS = sorted(FOLDER.glob("*.ipynb"))
MOST_CELLS = 25
MOST_BYTES = 200_000


def cells_of(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def test_there_are_eight_tutorials_in_a_row() -> None:
    assert [path.name[:3] for path in TUTORIALS] == [f"{number:02}-" for number in range(1, 9)]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_short(path: Path) -> None:
    assert len(cells_of(path)) <= MOST_CELLS
    assert path.stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_every_cell_was_run_from_top_to_bottom_before_it_was_saved(path: Path) -> None:
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_no_cell_is_left_out(path: Path) -> None:
    """nbval runs every cell: tags may excuse an output or expect an exception, never skip."""
    tags = {tag for cell in cells_of(path) for tag in cell["metadata"].get("tags", [])}
    assert tags <= {"nbval-ignore-output", "raises-exception"}
    first_lines = [cell["source"][0] for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert [line for line in first_lines if re.match(r"#\s*(NBVAL|PYTEST_VALIDATE)", line)] == []


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_outputs_hold_no_folder_and_no_id_of_the_machine(path: Path) -> None:
    outputs = json.dumps([cell.get("outputs", []) for cell in cells_of(path)])
    assert not re.findall(
        r"ipykernel_\d+|/home/\w+|/root/|/tmp/\w+|/work/\w+|[0-9a-f]{8}-[0-9a-f]{4}-", outputs
    )


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_links_lead_to_files(path: Path) -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (FOLDER / link).is_file()] == []
