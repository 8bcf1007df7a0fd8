"""A promoted module gives the results of the notebook, without IPython, and holds nothing else."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from .promoting import Workbook

#: Each a notebook, its cells apart by `# %%`, and an expression of the same value in it and in the module.
NOTEBOOKS = {
    "one actor": (
        """
        import nbqueue
        # %%
        @nbqueue.actor
        def add(a, b):
            return a + b
        """,
        "add.fn(1, 2)",
    ),
    "from import and options": (
        """
        from nbqueue import actor
        # %%
        @actor(queue_name='sums', max_retries=3)
        def add(a, b):
            return a + b
        """,
        "add.fn(1, 2), add.queue_name, add.options",
    ),
    "another name for nbqueue": (
        """
        import nbqueue as dramatiq
        # %%
        @dramatiq.actor()
        def add(a, b):
            return a + b
        """,
        "add.fn(1, 2)",
    ),
    "helpers, constants and imports, transitively": (
        """
        import math, os, sys
        import json as js
        from collections import Counter, OrderedDict
        # %%
        import nbqueue
        FACTOR = 3
        UNUSED = 4
        LIMIT = FACTOR * math.pi
        # %%
        def scale(x):
            return x * LIMIT

        def unused():
            return os.getcwd()
        # %%
        @nbqueue.actor
        def work(x):
            return js.dumps([scale(x), dict(Counter('aab'))])
        """,
        "work.fn(2)",
    ),
    "the last definition wins": (
        """
        import nbqueue
        N = 1
        # %%
        def f(): return N
        # %%
        @nbqueue.actor
        def g():
            return f()
        # %%
        N = 2
        def f():
            return N * 10
        """,
        "g.fn()",
    ),
    "mutual recursion": (
        """
        import nbqueue
        # %%
        def even(n):
            return n == 0 or odd(n - 1)
        # %%
        def odd(n):
            return n != 0 and even(n - 1)
        # %%
        @nbqueue.actor
        def is_even(n):
            return even(n)
        """,
        "[is_even.fn(n) for n in range(4)]",
    ),
    "unpacking and chains": (
        """
        import nbqueue
        A, (B, C) = 1, (2, 3)
        D = E = 4
        F: int = 5; G = 6  # both
        # %%
        @nbqueue.actor
        def f():
            return A, B, C, D, E, F, G
        """,
        "f.fn()",
    ),
    "constants of the standard library": (
        """
        import re, enum, datetime
        from pathlib import Path
        import nbqueue, collections
        # %%
        WORD = re.compile(r'\\w+')
        DATA = Path('data') / 'x.csv'
        DAY = datetime.timedelta(days=1)
        Point = collections.namedtuple('Point', 'x y')
        ORIGIN = Point(0, 0)
        class Color(enum.Enum):
            RED = 1
        DEFAULT = Color.RED
        SQUARES = [n * n for n in range(4)]
        TABLE = {**dict(a=1), 'b': len(SQUARES)}
        NAMES = 'a b'.split()
        MISSING = object()
        key = lambda x: x * 2
        # %%
        @nbqueue.actor
        def f(text, color=DEFAULT):
            assert MISSING is not None
            return WORD.findall(text), str(DATA), DAY, ORIGIN, color.name, SQUARES, TABLE, NAMES, key(2)
        """,
        "f.fn('a b')",
    ),
    "dataclasses": (
        """
        from dataclasses import dataclass, field
        import nbqueue
        # %%
        @dataclass
        class Config:
            limit: int = 3
            names: list[str] = field(default_factory=list)

        CONFIG = Config(limit=4)
        # %%
        @nbqueue.actor
        def f():
            return CONFIG
        """,
        "f.fn()",
    ),
    "classes with bases of the notebook, defined later": (
        """
        import nbqueue
        # %%
        class Base:
            limit = 3
            def run(self):
                return self.limit, Child.__name__
        # %%
        class Child(Base):
            limit = Base.limit + 1
        # %%
        @nbqueue.actor
        def f():
            return Child().run()
        # %%
        class Base:
            limit = 30
            def run(self):
                return self.limit, Child.__name__
        class Child(Base):
            limit = Base.limit + 1
        """,
        "f.fn()",
    ),
    "decorators of the notebook, and what they read": (
        """
        import functools
        import nbqueue
        # %%
        @functools.cache
        def slow(n):
            return n
        # %%
        TIMES = 2
        # %%
        def doubled(f):
            @functools.wraps(f)
            def inner(*args):
                return TIMES * f(*args)
            inner.times = TIMES
            return inner
        # %%
        @nbqueue.actor
        @doubled
        def f(x):
            return slow(x)
        """,
        "f.fn(4)",
    ),
    "an actor that sends to another": (
        """
        import nbqueue
        from nbqueue import group, pipeline
        # %%
        @nbqueue.actor
        def second(x):
            return x
        # %%
        @nbqueue.actor
        def first(x):
            return [pipeline([second.message(x), third.message()]).messages[0].args]
        # %%
        @nbqueue.actor
        def third(x):
            return x
        """,
        "first.fn(1), sorted(nbqueue.get_broker().actors)",
    ),
    "async actors": (
        """
        import asyncio, nbqueue
        # %%
        @nbqueue.actor
        async def f(x):
            await asyncio.sleep(0)
            return x
        """,
        "f.is_async",
    ),
    "actors made by calls": (
        """
        import nbqueue
        def one():
            return 1
        def two():
            return 2
        def three():
            return 3
        # %%
        first = nbqueue.actor(one)
        second = nbqueue.actor(queue_name='other')(two)
        three = nbqueue.actor(three, actor_name='tres')
        """,
        "first.fn(), second.fn(), second.queue_name, three.fn(), sorted(nbqueue.get_broker().actors)",
    ),
    "a decorator with a name": (
        """
        import nbqueue
        task = nbqueue.actor(queue_name='q')
        # %%
        @task
        def f():
            return 1
        """,
        "f.fn(), f.queue_name",
    ),
    "generic actors": (
        """
        import nbqueue
        # %%
        class Task(nbqueue.GenericActor):
            class Meta:
                abstract = True
            def perform(self, x):
                return self.work(x)
        # %%
        class Add(Task):
            class Meta:
                queue_name = 'sums'
            def work(self, x):
                return x + STEP
        # %%
        STEP = 4
        """,
        "Add(1), Add.queue_name, sorted(nbqueue.get_broker().actors)",
    ),
    "imports that may fail": (
        """
        import sys
        try:
            import ujson_that_is_missing as json
        except ImportError:
            import json
        if sys.version_info >= (3, 8):
            from math import prod
        else:
            prod = None
        # %%
        import nbqueue
        @nbqueue.actor
        def f():
            return json.dumps(prod([2, 3]))
        """,
        "f.fn()",
    ),
    "future annotations and types": (
        """
        from __future__ import annotations
        from typing import TYPE_CHECKING, Annotated, Literal, cast
        # %%
        if TYPE_CHECKING:
            from decimal import Decimal
            from fractions import Fraction
        # %%
        import nbqueue
        class Row(dict): pass
        # %%
        @nbqueue.actor
        def f(x: Decimal, mode: Literal['Nothing'] = 'Nothing') -> 'list[Row]':
            y: Annotated[Row, 'some text'] = cast('Row', x)
            return [y]
        """,
        "f.fn(1)",
    ),
    "names that are local": (
        """
        import nbqueue
        x = open
        rows = 5
        name = [1]
        # %%
        @nbqueue.actor
        def f(x, *, rows=None, **name):
            total = [x for x in range(3)]
            def inner():
                nonlocal total
                total = len(total)
            inner()
            if (n := total) > 1:
                pass
            match {'k': 1}:
                case {'k': value, **rest}:
                    pass
            try:
                1 / 0
            except ZeroDivisionError as error:
                text = str(error)
            import os.path as p
            with open(p.devnull) as file:
                text += file.read()
            return x, rows, name, total, n, value, rest, text
        """,
        "f.fn(1, a=2)",
    ),
    "class scopes": (
        """
        import nbqueue
        limit = 3
        class A:
            limit = limit + 1
            def get(self):
                return limit
        # %%
        @nbqueue.actor
        def f():
            return A.limit, A().get()
        """,
        "f.fn()",
    ),
    "a global that an actor changes": (
        """
        import nbqueue
        count = 0
        # %%
        @nbqueue.actor
        def f():
            global count, seen
            count += 1
            seen = count
            return seen
        """,
        "f.fn(), f.fn()",
    ),
    "star imports": (
        """
        from math import *
        from nbqueue.actor import *
        # %%
        @actor
        def f(x):
            return floor(x) + ceil(x)
        """,
        "f.fn(2.5)",
    ),
    "submodules": (
        """
        import os, os.path
        import xml.etree.ElementTree
        import xml.dom.minidom
        # %%
        import nbqueue
        @nbqueue.actor
        def f():
            return xml.etree.ElementTree.fromstring('<a/>').tag, os.path.join('a', 'b')
        """,
        "f.fn()",
    ),
    "order by need": (
        """
        import nbqueue
        @nbqueue.actor
        def f(x=1):
            return x
        # %%
        LIMIT = 5
        # %%
        @nbqueue.actor
        def f(x=LIMIT):
            return x + later()
        def later():
            return LIMIT
        """,
        "f.fn()",
    ),
}


@pytest.fixture
def book(tmp_path: Path) -> Workbook:
    return Workbook(tmp_path)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_module_gives_the_results_of_the_notebook(book: Workbook, name: str) -> None:
    text, expression = NOTEBOOKS[name]
    cells = dedent(text).split("# %%\n")
    book.promote(*cells)
    module, notebook = book.compare(expression, *cells)
    assert module == notebook
    assert book.lint() == ""
