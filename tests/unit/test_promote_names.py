"""The parts of promote that are tried by themselves: scopes, IPython's syntax, sorted imports."""

from __future__ import annotations

import ast
import itertools
import subprocess
from pathlib import Path

import pytest

from nbqueue.promote.imports import render_imports
from nbqueue.promote.ipython_syntax import to_python
from nbqueue.promote.scopes import needs_of
from nbqueue.promote.statements import Imported

from .promoting import RUFF


@pytest.mark.parametrize(
    ("source", "now", "later", "hints"),
    [
        ("x = a + b.c", "a b", "", ""),
        ("def f(p=a, *q: b, k=c, **r) -> d: return p, q, k, r, e", "a b c d", "e", ""),
        ("def f():\n    x: a = b\n    y.z: c = 1", "", "b c y", "a"),
        ("def f():\n    return [x for x in a if x in b for y in x]", "", "a b", ""),
        ("x = [x for x in x]", "x", "", ""),
        ("x = lambda y, z=a: y + z + b", "a", "b", ""),
        ("class C(a, metaclass=b):\n    x = c\n    y = x\n    def f(self): return x, y", "a b c", "x y", ""),
        ("class C:\n    x = x\n    z = [x for _ in a]", "x a", "", ""),
        ("def f():\n    def g():\n        nonlocal x\n        x = a\n    x = 1\n    return g", "", "a", ""),
        ("def f():\n    global x\n    x = a", "", "a", ""),
        ("def f():\n    global x\n    x += 1", "", "x", ""),
        ("def f():\n    if (y := a) and [z := b for _ in c]:\n        return y, z", "", "a b c", ""),
        ("def f(v):\n    match v:\n        case a.B: pass\n        case C(x=[*y]): return y", "", "a C", ""),
        ("def f():\n    try: a()\n    except b as e: return e", "", "a b", ""),
        ("def f():\n    import m.n as o, p.q\n    from r import s\n    return o, p, s", "", "", ""),
        ("def f(x: 'l[a]', y: Literal['b'], z: Annotated['c', 'd']): 0", "Literal Annotated", "", "l a c"),
        ("def f(x): return cast('a', x)", "", "cast", "a"),
        ("@a(b)\n@c.d\nasync def f():\n    async with e as x: await x", "a b c", "e", ""),
        ("def f():\n    del x\n    x = 1", "", "", ""),
        ("def f(): return (lambda: [a for a in b])()", "", "b", ""),
        ("def f():\n    class C:\n        y = 1\n        def g(self): return y\n    return C", "", "y", ""),
    ],
)  # fmt: skip
def test_global_names_are_found_as_python_scopes_them(source: str, now: str, later: str, hints: str) -> None:
    needs = needs_of(ast.parse(source).body[0], lazy_annotations=False)
    assert (set(needs.now), set(needs.later), set(needs.hints)) == (
        set(now.split()), set(later.split()), set(hints.split()),
    )  # fmt: skip


def test_annotations_are_only_hints_where_they_are_not_evaluated() -> None:
    needs = needs_of(ast.parse("def f(x: a) -> b: pass").body[0], lazy_annotations=True)
    assert (set(needs.now), set(needs.hints)) == (set(), {"a", "b"})


@pytest.mark.parametrize(
    ("source", "python"),
    [
        ("%load_ext x\ny = 1", "\ny = 1"),
        ("!ls \\\n  -l\ny = 1", "\n\ny = 1"),
        ("x = !ls 'it", "x = ..."),
        ("a, b.c = %magic", "a, b.c = ..."),
        ("%time x = 1", "x = 1"),
        ("%time f(x=1)", ""),
        ("def f():\n    %magic\n    return 1", "def f():\n    pass\n    return 1"),
        ("x?\n?x\n%%time?\ny = 2", "\n\n\ny = 2"),
        ("/f 1\n,g 2\n;h 3", "\n\n"),
        ("x = (4\n%3)", "x = (4\n%3)"),
        ("x = 4 \\\n%3", "x = 4 \\\n%3"),
        ("x = '''\n%a\n!b\n'''", "x = '''\n%a\n!b\n'''"),
        ("x = 'it''s' # (\n%a", "x = 'it''s' # (\n"),
        ("x = '\\\\'\n%a", "x = '\\\\'\n"),
        ("x = '\\\n%a'", "x = '\\\n%a'"),
        ("print('a = !b')\nx = {'?': 1}", "print('a = !b')\nx = {'?': 1}"),
        ("x %= 3\ny = x % 2", "x %= 3\ny = x % 2"),
        ("%%time\nx = 1", "\nx = 1"),
        ("\n%%capture out\nx = 1", "\n\nx = 1"),
        ("%%bash\nx = 1", ""),
        ("%%actor max_retries=3\ndef f(): pass", "\ndef f(): pass"),
        ("  x = 1\n  y = 2", "x = 1\ny = 2"),
        ("", ""),
    ],
)
def test_ipython_syntax_is_taken_out_and_lines_keep_their_numbers(source: str, python: str) -> None:
    assert to_python(source).python == python


MODULES = [
    Imported("os", None, None), Imported("os.path", None, None), Imported("json", None, "js"),
    Imported("nbqueue", None, None), Imported("numpy", None, "np"), Imported("helpers", None, None),
    Imported("a10", None, None), Imported("a2", None, None), Imported("Xlib", None, None),
]  # fmt: skip
MEMBERS = [
    Imported(module, member, alias)
    for module, (member, alias) in itertools.product(
        ["collections", "nbqueue", "pkg.sub", "helpers"],
        [("Counter", None), ("MAX", None), ("T", None), ("name10", None), ("name2", None), ("deque", "dq"),
         ("_private", None), ("a_rather_long_name_that_fills_the_line", None), ("Counter", "C")],
    )
]  # fmt: skip


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7])
def test_imports_are_sorted_and_wrapped_as_the_formatter_does(tmp_path: Path, step: int) -> None:
    (tmp_path / "helpers.py").write_text("")
    wanted = [*reversed(MODULES), *MEMBERS[::step], Imported("decimal", "Decimal", None, typing_only=True)]
    text = render_imports([*wanted, *wanted], ["annotations"], str(tmp_path)) + "\n"
    (tmp_path / "tasks.py").write_text(text)
    for command in (["check", "--select", "I"], ["format"]):
        done = subprocess.run(
            [RUFF, command[0], "--isolated", "--no-cache", "--diff", "--quiet", *command[1:], "tasks.py"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.stdout + done.stderr == ""
    assert len(ast.parse(text).body) > 3
