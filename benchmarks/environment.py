"""The virtual environment of the peers: `.venv-bench`, apart from the one nbqueue is developed in.

Made on first use with venv and pip from `requirements.txt`, nbqueue itself from this checkout, and brought
up to date whenever one of the two lists of requirements changes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-bench"
PYTHON = FOLDER / "bin" / "python"
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"


def wanted() -> str:
    """Return what the environment is made from; a moved checkout needs a new editable install."""
    return "\n".join([str(ROOT), REQUIREMENTS.read_text(), (ROOT / "pyproject.toml").read_text()])


def python() -> Path:
    """Return the environment's interpreter, making or updating the environment where needed.

    Raises `subprocess.CalledProcessError` when venv or pip fails; their messages are on stderr.
    """
    stamp = FOLDER / "made-from"
    if stamp.exists() and stamp.read_text() == wanted():
        return PYTHON
    print("Installing the peers into .venv-bench ...", file=sys.stderr)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    needed = ["--editable", f"{ROOT}[redis,rabbitmq]", "--requirement", str(REQUIREMENTS)]
    subprocess.run([*pip, *needed], check=True, stdout=sys.stderr)
    stamp.write_text(wanted())
    return PYTHON
