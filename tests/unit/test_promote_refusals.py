"""What can't travel is refused, each name with its place, its reason and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbqueue.promote.refusals import CannotTravel, PromoteError, UsageError

from .promoting import Workbook

MAKE_INSIDE = "Make it inside `clean`, or in a function with @functools.cache that `clean` calls."
COMPUTE_INSIDE = "Assign it in one statement of its own, or compute it inside `clean`."

#: What a cell defines, what an actor then returns, and how the refusal goes on after "`clean` uses ".
NAMES = {
    "data": (
        "import pandas as pd\nstations = pd.read_csv('x.csv')", "stations",
        "`stations`, data of the notebook, made by `pd.read_csv(…)` (cell 2, line 2). "
        "Pass it as an argument, or load it inside `clean`.",
    ),
    "an open file": (
        "log = open('x')", "log.read()", "`log`, an open file (cell 2, line 1). Open it inside `clean`.",
    ),
    "an open path": (
        "from pathlib import Path\nlog = Path('x').open()", "log.read()",
        "`log`, an open file (cell 2, line 2). Open it inside `clean`.",
    ),
    "a broker": (
        "broker = nbqueue.get_broker()", "broker",
        "`broker`, a broker (cell 2, line 1). Take broker=… out, and use nbqueue.get_broker() inside "
        "functions: the module's broker is the one that NBQUEUE_BROKER_URL names.",
    ),
    "a rate limiter": (
        "from nbqueue.rate_limits import ConcurrentRateLimiter\nlimiter = ConcurrentRateLimiter(None, 'k')",
        "limiter.acquire()",
        f"`limiter`, a rate limiter or its backend, which holds a connection (cell 2, line 2). {MAKE_INSIDE}",
    ),
    "a live object": (
        "import requests\nsession = requests.Session()", "session",
        "`session`, what `requests.Session(…)` returned when the notebook ran (cell 2, line 2). "
        f"{MAKE_INSIDE}",
    ),
    "a result of the notebook's function": (
        "def make():\n    return 3\nx = make()", "x",
        f"`x`, what `make(…)` returned when the notebook ran (cell 2, line 3). {MAKE_INSIDE}",
    ),
    "an object of the notebook's class": (
        "class Client:\n    pass\nclient = Client()", "client",
        f"`client`, an object of the notebook's class `Client` (cell 2, line 3). {MAKE_INSIDE}",
    ),
    "a generator": (
        "numbers = (n for n in [1])", "list(numbers)",
        "`numbers`, a generator, which is used up once (cell 2, line 1). "
        "Make it a list, or make it inside `clean`.",
    ),
    "awaited": (
        "data = await load()", "data",
        "`data`, what the notebook awaited (cell 2, line 1). Await it inside `clean`.",
    ),
    "a loop": (
        "for n in range(3):\n    last = n", "last",
        f"`last`, defined by a `for` loop as it runs (cell 2, line 1). {COMPUTE_INSIDE}",
    ),
    "a with block": (
        "with open('x') as file:\n    text = file.read()", "text",
        f"`text`, defined by a `with` block as it runs (cell 2, line 1). {COMPUTE_INSIDE}",
    ),
    "a walrus": (
        "print(n := 3)", "n", f"`n`, defined by an expression as it runs (cell 2, line 1). {COMPUTE_INSIDE}",
    ),
    "a function under a condition": (
        "if 1:\n    def helper():\n        pass", "helper()",
        "`helper`, defined inside an `if` (cell 2, line 1). Define it at the top of a cell.",
    ),
    "augmented": (
        "n = 1\nn += 1", "n",
        "`n`, changed by running code (cell 2, line 2). Assign its final value in one statement.",
    ),
    "assigned from itself": (
        "n = 1\nn = n + 1", "n",
        "`n`, changed by running code (cell 2, line 2). Assign its final value in one statement.",
    ),
    "deleted": ("n = 1\ndel n", "n", "`n`, deleted since (cell 2, line 2). Define it again after that."),
    "a changed list": (
        "names = []\nfor n in range(3):\n    names.append(n)", "names",
        "`names`, changed by `names.append(n)` at cell 2, line 3 (cell 2, line 1). "
        "Write the final value where it is defined.",
    ),
    "a changed dictionary": (
        "table = {}\ntable['a'] = 1", "table",
        "`table`, changed by `table['a'] = 1` at cell 2, line 2 (cell 2, line 1). "
        "Write the final value where it is defined.",
    ),
    "a shell command": (
        "files = !ls", "files",
        "`files`, what `files = !ls` gave (cell 2, line 1). Run it inside `clean` with subprocess.run.",
    ),
    "a magic": (
        "%time n = sum([1])", "n",
        f"`n`, what `%time n = sum([1])` gave (cell 2, line 1). {MAKE_INSIDE}",
    ),
    "nothing": ("pass", "nowhere", "`nowhere`, defined by no cell. Define it, or import it, in a cell."),
    "a cell that is no Python": (
        "def broken(:", "broken()",
        "`broken`, defined by no cell. Define it, or import it, in a cell. "
        "(Not read: cell 2, line 1: invalid syntax.)",
    ),
    "a name of IPython's": (
        "pass", "display(1)", "`display`, a name of IPython's. Print or return text instead.",
    ),
    "the last output": ("3", "_", "`_`, a name of IPython's. Pass the value as an argument."),
    "an import from IPython": (
        "from IPython.display import HTML", "HTML('')",
        "`HTML`, imported from IPython, which workers do without (cell 2, line 1). "
        "Print or return text instead.",
    ),
    "a star import": (
        "from pandas_or_so import *", "read_csv()",
        "`read_csv`, a name that may come from `from pandas_or_so import *`. Import it by its name.",
    ),
    "the module to write": (
        "from tasks import other", "other()",
        "`other`, imported from tasks, the module to write (cell 2, line 1). Define it in the notebook.",
    ),
}  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> Workbook:
    return Workbook(tmp_path)


def refusals(book: Workbook, *cells: str) -> list[str]:
    """Return the sentences of a refusal; nothing was written."""
    with pytest.raises(CannotTravel) as refused:
        book.promote(*cells)
    assert not book.module.exists()
    lines = str(refused.value).splitlines()
    sentences = [str(refusal) for refusal in refused.value.refusals]
    assert lines[1:] == [f"  {sentence}" for sentence in sentences]
    assert "can't travel" in lines[0]
    return sentences


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_that_cannot_travel_is_refused_with_what_to_do(book: Workbook, kind: str) -> None:
    defined, used, sentence = NAMES[kind]
    actor = f"@nbqueue.actor\ndef clean(path):\n    return {used}"
    assert refusals(book, "import nbqueue", defined, actor) == [f"cell 3, line 3: `clean` uses {sentence}"]


def test_ipython_syntax_inside_an_actor_is_refused_line_by_line(book: Workbook) -> None:
    actor = "@nbqueue.actor\ndef clean(path):\n    !ls {path}\n    %time 1\n    return 1"
    remedy = "Take it out, or write it in Python (subprocess.run for a shell command)."
    assert refusals(book, "import nbqueue", actor) == [
        f"cell 2, line 3: `clean` holds `!ls {{path}}`, which only IPython understands. {remedy}",
        f"cell 2, line 4: `clean` holds `%time 1`, which only IPython understands. {remedy}",
    ]


def test_all_refusals_are_told_at_once_in_the_order_of_the_notebook(book: Workbook) -> None:
    said = refusals(
        book,
        "import nbqueue\nimport pandas as pd\ndf = pd.DataFrame()\nROWS = len(df)",
        "def helper():\n    return ROWS",
        "@nbqueue.actor\ndef clean():\n    return helper()",
        "@nbqueue.actor\ndef other():\n    return df, open_file",
    )
    remedy = "Pass it as an argument, or load it inside"
    what = "`df`, data of the notebook, made by `pd.DataFrame(…)` (cell 1, line 3)."
    assert said == [
        f"cell 1, line 4: `ROWS` uses {what} {remedy} `helper`.",
        f"cell 4, line 3: `other` uses {what} {remedy} `other`.",
        "cell 4, line 3: `other` uses `open_file`, defined by no cell. Define it, or import it, in a cell.",
    ]


def test_an_actor_under_a_condition_is_refused(book: Workbook) -> None:
    said = refusals(book, "import nbqueue\nif 1:\n    @nbqueue.actor\n    def clean():\n        pass")
    assert said == ["cell 1, line 2: `clean` is defined inside an `if`. Define it at the top of a cell."]


def test_a_broker_in_a_decorator_is_refused(book: Workbook) -> None:
    actor = "@nbqueue.actor(broker=broker)\ndef clean():\n    pass"
    (said,) = refusals(book, "import nbqueue\nbroker = nbqueue.get_broker()", actor)
    assert said.startswith(
        "cell 2, line 1: `clean` uses `broker`, a broker (cell 1, line 2). Take broker=… out"
    )


def test_two_actors_of_one_name_are_refused(book: Workbook) -> None:
    actors = [f"@nbqueue.actor(actor_name='same')\ndef {name}():\n    pass" for name in ("one", "two")]
    assert refusals(book, "import nbqueue", *actors) == [
        "cell 3, line 2: `same` is the name of two actors, here and at cell 2, line 2. Rename one."
    ]


def test_an_actor_that_is_changed_afterwards_is_refused(book: Workbook) -> None:
    said = refusals(book, "import nbqueue\n@nbqueue.actor\ndef clean():\n    pass", "clean.priority = 3")
    assert said[0].startswith("cell 1, line 3: `clean` is changed by `clean.priority = 3` at cell 2, line 1.")


def test_what_is_not_needed_may_be_anything(book: Workbook) -> None:
    book.promote(
        "%load_ext nbqueue\n%nbqueue use redis://localhost\n!pip list \\\n  --outdated\nfiles = !ls",
        "%%bash\nfor x in *; do echo $x; done",
        "%%time\nimport nbqueue\nimport pandas as pd\ndf = pd.read_csv('it''s.csv')\ndf.head?",
        "text = '''\n%not a magic\n!nor this\n'''; number = (4\n%3)",
        "def unreadable(:",
        "@nbqueue.actor\ndef clean():\n    return text, number",
        "clean.send()\n?clean",
    )
    module, notebook = book.compare(
        "clean.fn()",
        "import nbqueue\ntext = '''\n%not a magic\n!nor this\n'''; number = (4\n%3)",
        "@nbqueue.actor\ndef clean():\n    return text, number",
    )
    assert module == notebook
    assert "redis" not in book.text


def test_a_notebook_without_actors_says_so(book: Workbook) -> None:
    with pytest.raises(
        PromoteError, match=r"report\.ipynb defines no actor: put @nbqueue\.actor on a function\."
    ):
        book.promote("import nbqueue\ndef f():\n    pass")


def test_an_actor_that_is_not_there_is_named_with_the_nearest(book: Workbook) -> None:
    book.write("import nbqueue\n@nbqueue.actor\ndef clean():\n    pass")
    with pytest.raises(UsageError, match=r"no actor 'claen'\. Did you mean clean\?"):
        book.promote(actors=["claen"])
    with pytest.raises(UsageError, match=r"no actor 'x'\. There are clean\."):
        book.promote(actors=["x"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tasks.txt", "must end in .py"),
        ("queue.py", "would hide Python's module queue"),
        ("nbqueue.py", "would hide Python's module nbqueue"),
        ("missing/tasks.py", "There is no folder"),
    ],
)
def test_a_file_name_that_cannot_be_is_refused(book: Workbook, name: str, said: str) -> None:
    book.module = book.folder / name
    with pytest.raises(UsageError, match=said):
        book.promote("import nbqueue\n@nbqueue.actor\ndef clean():\n    pass")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no notebook"),
        ("[]", "has no cells"),
        ('{"worksheets": []}', "has no cells"),
        ('{"cells": [], "metadata": {"kernelspec": {"language": "R"}}}', "is written in r, not in Python"),
    ],
)
def test_a_file_that_is_no_python_notebook_is_refused(book: Workbook, content: str, said: str) -> None:
    book.notebook.write_text(content)
    with pytest.raises(UsageError, match=said):
        book.promote()


def test_a_notebook_that_is_not_there_is_refused(book: Workbook) -> None:
    with pytest.raises(UsageError, match="can't be read: No such file"):
        book.promote()
