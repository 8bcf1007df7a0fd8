"""Runs a notebook from top to bottom in a fresh kernel and prints what each step shows.

    python notebooks/run.py notebooks/01-quickstart.ipynb [--save]

Ends with 1 when a cell fails that isn't meant to (its tag `raises-exception` says so). `--save` writes
the outputs into the notebook, without what differs from run to run, which the tests leave out as well.
"""

from __future__ import annotations

import argparse
import configparser
import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

COLOUR = sys.stdout.isatty()
#: What differs from run to run, as pairs of a pattern and what stands for it.
VARYING = Path(__file__).parent.parent / "tests" / "notebooks" / "nbval.cfg"


def paint(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def readable(output: Any) -> str:
    """Return an output as text for a terminal."""
    if output.output_type == "stream":
        text = output.text
    elif output.output_type == "error":
        text = "\n".join(output.traceback)
    else:
        text = output.data.get("text/plain", "")
    return text.rstrip() if COLOUR else re.sub(r"\x1b\[[0-9;]*m", "", text.rstrip())


def anonymous(text: str) -> str:
    """Return a line of a traceback without the folders of this machine."""
    text = re.sub(r"[^\s\"\x1b]*/ipykernel_\d+/\d+\.py", "<cell>", text)
    return re.sub(r"(~|/)[^\s\"\x1b:]*/(nbqueue|python3\.\d+)/", r"\2/", text)


def steady(value: Any) -> Any:
    """Return what an output holds without what differs from run to run."""
    if isinstance(value, dict):
        return {key: steady(part) if key != "image/png" else part for key, part in value.items()}
    if isinstance(value, list):
        return [steady(part) for part in value]
    if not isinstance(value, str):
        return value
    pairs = configparser.ConfigParser(interpolation=None)
    pairs.read(VARYING)
    for name in pairs.sections():
        value = re.sub(pairs[name]["regex"], pairs[name]["replace"], value)
    return value


def show(cell: Any, **_: Any) -> None:
    """Print a cell and what it shows."""
    source = cell.source.strip()
    if cell.cell_type == "markdown":
        print("\n" + paint("1", source))
        return
    if cell.cell_type != "code" or not source:
        return
    print()
    for number, line in enumerate(source.splitlines()):
        print(paint("36", ("In:  " if number == 0 else "     ") + line))
    for output in cell.outputs:
        lines = readable(output).splitlines()
        for number, line in enumerate(lines):
            print(("Out: " if number == 0 else "     ") + line)
    sys.stdout.flush()


def catch_up(client: NotebookClient, notebook: Any) -> None:
    """Take in what cards still have to show: after 2 s without news they look whether results are there."""
    notebook.cells.append(nbformat.v4.new_code_cell("import time; time.sleep(4)"))
    client.execute_cell(notebook.cells[-1], len(notebook.cells) - 1)
    notebook.cells.pop()


def run(path: Path, save: bool) -> int:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    started = time.monotonic()
    failed: CellExecutionError | None = None
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                failed = error
            show(cell)
            if failed is not None:
                print(f"\n{path}: cell {index + 1} failed: {failed.ename}: {failed.evalue}", file=sys.stderr)
                return 1
        if save:
            catch_up(client, notebook)
    if save:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    output.traceback = [anonymous(line) for line in output.traceback]
                output.update(nbformat.from_dict(steady(dict(output))))
        notebook.metadata.pop("widgets", None)
        notebook.metadata.get("language_info", {}).pop("version", None)
        nbformat.write(notebook, path)
    print(f"\n{path}: every cell ran, {time.monotonic() - started:.1f} s.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--save", action="store_true", help="write the outputs into the notebook")
    arguments = parser.parse_args()
    if not arguments.notebook.is_file():
        print(f"There is no notebook {arguments.notebook}.", file=sys.stderr)
        return 2
    return run(arguments.notebook, arguments.save)


if __name__ == "__main__":
    sys.exit(main())
