"""The wheel by itself, in an environment where nothing else is: it works, and says what brings the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import nbqueue
from nbqueue.cli.app import COMMANDS

from ..notebooks.conftest import ADD, Notebook
from .conftest import EXTRAS, IMPORT_ALL, KERNEL, Distributions, Environment

#: Environments are made in 7 s, and in several times that on a machine that is busy.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def bare(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and no extra."""
    return Environment(tmp_path_factory.mktemp("bare"), str(distributions.wheel))


@pytest.fixture(scope="session")
def kernel_packages(bare: Environment) -> Path:
    """A folder with a kernel, to be put on the path of the bare environment."""
    folder = bare.work.parent / "kernel"
    bare.install("--target", str(folder), KERNEL)
    return folder


@pytest.fixture
def notebook(bare: Environment, kernel_packages: Path) -> Iterator[Notebook]:
    """A notebook whose kernel runs in the bare environment."""
    variables = bare.variables(PYTHONPATH=str(kernel_packages))
    notebook = Notebook(str(bare.programs / "python"), cwd=str(bare.work), env=variables)
    yield notebook
    notebook.close()


def test_it_requires_what_it_says_and_no_client_library(bare: Environment) -> None:
    assert bare.run("python", "-m", "pip", "check").returncode == 0
    names = "redis hiredis pika pymemcache prometheus_client ipywidgets anywidget watchfiles gevent IPython"
    program = f"import importlib.util; print([n for n in {names.split()} if importlib.util.find_spec(n)])"
    assert bare.python(program) == "[]\n"


def test_what_is_imported_is_what_was_installed(bare: Environment) -> None:
    path, version = bare.python("import nbqueue; print(nbqueue.__file__, nbqueue.__version__)").split()
    assert Path(path).is_relative_to(bare.programs.parent)
    assert version == nbqueue.__version__


def test_messages_run_in_process(bare: Environment) -> None:
    program = """
import nbqueue

@nbqueue.actor
def double(n):
    return 2 * n

print(sum(double.starmap((n,) for n in range(100)).get_results()))
nbqueue.dashboard()
"""
    result, *shown = bare.python(program).splitlines()
    assert result == "9900"
    assert any(line.startswith("queues") for line in shown)


def test_every_module_can_be_imported_or_names_its_extra(bare: Environment) -> None:
    lines = bare.python(IMPORT_ALL).splitlines()
    assert sum(line.startswith("there") for line in lines) > 150
    without = [line for line in lines if line.startswith("lacks") and 'pip install "nbqueue[' not in line]
    # The dashboard chooses plain HTML where it can't have the widget, and its foot names the extra.
    assert [line.split()[1] for line in without] == ["nbqueue.notebook.dashboard.widget"]


@pytest.mark.parametrize("program", [("nbqueue",), ("python", "-m", "nbqueue")], ids=" ".join)
def test_the_command_line_explains_itself(bare: Environment, program: tuple[str, ...]) -> None:
    shown = bare.run(*program, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(f"  {command} " in shown.stdout for command in COMMANDS)
    assert bare.run(*program, "serve", "--help").returncode == 0


def test_a_notebook_is_promoted_without_ipython(bare: Environment) -> None:
    cells = ["%load_ext nbqueue\nimport nbqueue", "@nbqueue.actor\ndef double(n):\n    return 2 * n"]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    bare.write("promoted.ipynb", nbformat.writes(notebook))
    done = bare.run("nbqueue", "promote", "promoted.ipynb", "-o", "promoted.py")
    assert done.returncode == 0, done.stderr
    program = "import sys; sys.path.insert(0, ''); import promoted; print(promoted.double(4))"
    assert bare.python(program) == "8\n"


def test_a_notebook_loads_it_and_sends(notebook: Notebook) -> None:
    assert notebook.run("%load_ext nbqueue").error == ""
    assert notebook.run(ADD).error == ""
    assert notebook.run("add.send(1, 2).get_result()").result == "3"
    assert notebook.run("%nbqueue").error == ""


# -- what is missing ---------------------------------------------------------------------------------------

#: Ways to what an extra brings, by extra.
WAYS: dict[str, list[tuple[str, ...]]] = {
    "redis": [
        ("python", "-c", "from nbqueue.brokers.redis import RedisBroker"),
        ("python", "-c", "from nbqueue.results.backends import RedisBackend"),
        ("python", "-c", "from nbqueue.rate_limits.backends import RedisBackend"),
        ("python", "-c", "import nbqueue; nbqueue.broker.from_url('redis://localhost')"),
        ("nbqueue", "queues", "--broker-url", "redis://localhost"),
        ("nbqueue", "serve", "tasks", "--broker-url", "redis://localhost"),
    ],
    "rabbitmq": [
        ("python", "-c", "from nbqueue.brokers.rabbitmq import RabbitmqBroker"),
        ("python", "-c", "import nbqueue; nbqueue.broker.from_url('amqp://localhost')"),
        ("nbqueue", "queues", "--broker-url", "amqp://localhost"),
        ("nbqueue", "serve", "tasks", "--broker-url", "amqp://localhost"),
    ],
    "memcached": [
        ("python", "-c", "from nbqueue.results.backends import MemcachedBackend"),
        ("python", "-c", "from nbqueue.rate_limits.backends import MemcachedBackend"),
    ],
    "prometheus": [
        ("python", "-c", "from nbqueue.middleware.prometheus import Prometheus"),
    ],
    "watch": [
        ("python", "-c", "from nbqueue.watcher import changes"),
        ("nbqueue", "serve", "tasks", "--watch", "."),
    ],
    "gevent": [
        ("nbqueue-gevent", "serve", "tasks"),
    ],
}


def test_every_extra_is_looked_for() -> None:
    assert {*WAYS, "jupyter"} == set(EXTRAS)


@pytest.mark.parametrize(
    ("extra", "way"),
    [(extra, way) for extra, ways in WAYS.items() for way in ways],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(
    bare: Environment, extra: str, way: tuple[str, ...]
) -> None:
    bare.write("tasks.py", "import nbqueue\n\n@nbqueue.actor\ndef nothing(): ...\n")
    done = bare.run(*way)
    assert done.returncode != 0
    assert f'pip install "nbqueue[{extra}]"' in done.stderr.splitlines()[-1]


def test_a_magic_names_the_extra(notebook: Notebook) -> None:
    assert notebook.run("%load_ext nbqueue").error == ""
    assert 'pip install "nbqueue[redis]"' in notebook.run("%nbqueue use redis://localhost").stdout


def test_the_dashboard_names_the_extra_below_what_it_shows_without(notebook: Notebook) -> None:
    assert notebook.run("%load_ext nbqueue").error == ""
    shown = notebook.run("%nbqueue dashboard")
    assert shown.error == ""
    assert "pip install &quot;nbqueue[jupyter]&quot;" in shown.data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" not in shown.data
