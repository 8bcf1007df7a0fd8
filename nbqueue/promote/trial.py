"""Imports a module in a fresh interpreter, as `nbqueue serve` would, and says in one line what fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys

#: Seconds that importing may take.
TIMEOUT = 60

_PROGRAM = """
import json, os, sys, traceback
path, actors = sys.argv[1], sys.argv[2:]
out, sys.stdout = sys.stdout, sys.stderr
from nbqueue.serve.loading import import_named
said = ""
try:
    import_named(path)
except BaseException as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == path]
    place = f"line {lines[-1]}: " if lines else ""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    said = place + " ".join(text.split())
else:
    from nbqueue import get_broker
    missing = [name for name in actors if name not in get_broker().actors]
    if missing:
        said = "it declares no actor " + ", ".join(missing)
out.write("\\n" + json.dumps(said))
out.flush()
os._exit(0)
"""


def try_import(path: str, actors: list[str]) -> str | None:
    """Import a file in a fresh interpreter; return what fails, None if nothing does.

    The broker of the environment isn't used: importing must not need a server.
    """
    environment = {name: value for name, value in os.environ.items() if name != "NBQUEUE_BROKER_URL"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-c", _PROGRAM, os.path.abspath(path), *actors]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"it is still being imported after {TIMEOUT} s"
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"the interpreter ended with code {done.returncode}"])[
            -1
        ]
        return last
    return str(said) or None
