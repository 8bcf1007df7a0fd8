"""Which values can be written into a module: literals, and what is made of them and of names that travel.

A module is imported by every worker process. What may stand at its top level is a value that comes out the
same each time and touches nothing: no file, no connection, no data, no call of the notebook's functions.
"""

from __future__ import annotations

import ast

from .refusals import Problem
from .statements import Function, Notebook

#: Functions and classes whose result is a value, or something that modules usually have, by their module.
_CALLABLES = {
    "builtins": (
        "abs all any ascii bin bool bytearray bytes chr complex dict divmod enumerate float format "
        "frozenset hex int len list max min object oct ord pow property range repr reversed round set slice "
        "sorted str sum tuple type zip"
    ),
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "contextvars": "ContextVar",
    "datetime": (
        "date date.fromisoformat datetime datetime.fromisoformat datetime.strptime time timedelta timezone"
    ),
    "decimal": "Decimal",
    "enum": "Enum Flag IntEnum IntFlag StrEnum",
    "fractions": "Fraction",
    "functools": "cache lru_cache partial wraps",
    "ipaddress": "ip_address ip_network",
    "json": "loads",
    "logging": "getLogger",
    "nbqueue": "get_logger logging.get_logger",
    "numpy": "arange array dtype eye full linspace ones zeros",
    "operator": "attrgetter itemgetter methodcaller",
    "os": "environ.get getenv",
    "pathlib": "Path Path.cwd Path.home PurePath PurePosixPath",
    "re": "compile escape",
    "string": "Template",
    "struct": "Struct",
    "textwrap": "dedent",
    "threading": "Lock RLock local",
    "types": "MappingProxyType SimpleNamespace",
    "typing": "NamedTuple NewType ParamSpec TypeVar TypedDict",
    "typing_extensions": "ParamSpec TypeVar TypedDict",
    "urllib.parse": "quote urljoin urlsplit",
    "uuid": "UUID",
    "zoneinfo": "ZoneInfo",
}
CALLABLES = {f"{module}.{name}" for module, names in _CALLABLES.items() for name in names.split()}
PURE_MODULES = ("math.", "os.path.")

#: Methods of values that give values.
_METHODS = """
    absolute capitalize casefold copy decode difference encode expanduser format fromkeys get intersection
    isoformat items join joinpath keys lower lstrip removeprefix removesuffix replace resolve rsplit rstrip
    split splitlines strip title total_seconds union upper values with_name with_suffix zfill
"""
METHODS = set(_METHODS.split())

#: Classes of the notebook whose objects are values: they only hold what they are given.
VALUE_DECORATORS = {
    "dataclasses.dataclass",
    "attr.s",
    "attrs.define",
    "attrs.frozen",
    "pydantic.dataclasses.dataclass",
}
VALUE_BASES = {"typing.NamedTuple", "pydantic.BaseModel"}

DATA_LIBRARIES = ("pandas", "polars", "numpy", "pyarrow", "xarray", "geopandas", "dask")

BROKER = Problem(
    "a broker",
    "Take broker=… out, and use nbqueue.get_broker() inside functions: the module's broker is the one that "
    "NBQUEUE_BROKER_URL names.",
)


def data(what: str) -> Problem:
    return Problem(what, "Pass it as an argument, or load it inside {user}.")


def live(what: str) -> Problem:
    return Problem(what, "Make it inside {user}, or in a function with @functools.cache that {user} calls.")


def open_file(what: str) -> Problem:
    return Problem(what, "Open it inside {user}.")


def problem_of(node: ast.expr, notebook: Notebook) -> Problem | None:
    """Return what keeps an expression from being written into a module, None if nothing does.

    Names are left to the caller: they travel if what they stand for does.
    """
    if isinstance(node, ast.Lambda):
        return None
    if isinstance(node, ast.GeneratorExp):
        return Problem("a generator, which is used up once", "Make it a list, or make it inside {user}.")
    if isinstance(node, ast.Await):
        return Problem("what the notebook awaited", "Await it inside {user}.")
    if isinstance(node, ast.Constant) and node.value is ...:
        return None
    return _problem_in(node, notebook)


def _problem_in(node: ast.AST, notebook: Notebook) -> Problem | None:
    if isinstance(node, ast.Lambda):
        return None
    if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
        return Problem("a name defined by running code", "Compute it inside {user}.")
    if isinstance(node, ast.Call) and (problem := _problem_of_call(node, notebook)):
        return problem
    for child in ast.iter_child_nodes(node):
        if problem := _problem_in(child, notebook):
            return problem
    return None


def _problem_of_call(node: ast.Call, notebook: Notebook) -> Problem | None:
    """Return what is wrong with a call, its arguments aside."""
    called = node.func
    if notebook.makes_actors(called):
        return None
    dotted = notebook.dotted(called)
    if dotted is not None:
        if dotted in CALLABLES or dotted.startswith(PURE_MODULES):
            return None
        return _problem_of_result(dotted, called)
    if isinstance(called, ast.Name):
        piece = notebook.last(called.id)
        if piece is None:
            if f"builtins.{called.id}" in CALLABLES:
                return None
            return open_file("an open file") if called.id == "open" else _running(called)
        if isinstance(piece.node, ast.ClassDef):
            if _makes_values(piece.node, notebook):
                return None
            return live(f"an object of the notebook's class `{called.id}`")
        if piece.kind == "assignment" and _is_class_made_by_call(piece.node, notebook):
            return None
        return _running(called)
    if isinstance(called, ast.Attribute):
        if called.attr == "open":
            return open_file("an open file")
        root = called.value
        imported = notebook.dotted(root) is not None and not isinstance(root, ast.Call)
        if called.attr in METHODS and not imported:
            return None
        return _running(called)
    if isinstance(called, ast.Call):
        # `cache(size=3)(f)`: the inner call is looked at as a child.
        return None
    return _running(called)


def _problem_of_result(dotted: str, called: ast.expr) -> Problem:
    if dotted in ("io.open", "gzip.open", "bz2.open", "lzma.open", "codecs.open"):
        return open_file("an open file")
    if dotted.startswith("nbqueue.brokers.") or dotted.endswith(
        ("nbqueue.get_broker", "nbqueue.broker.get_broker", "nbqueue.broker.from_url")
    ):
        return BROKER
    if dotted.startswith("nbqueue.rate_limits."):
        return live("a rate limiter or its backend, which holds a connection")
    if dotted.startswith("nbqueue.results."):
        return live("a result backend, which holds a connection")
    if dotted.partition(".")[0] in DATA_LIBRARIES:
        return data(f"data of the notebook, made by `{ast.unparse(called)}(…)`")
    return live(f"what `{ast.unparse(called)}(…)` returned when the notebook ran")


def _running(called: ast.expr) -> Problem:
    text = ast.unparse(called)
    return live(f"what `{text if len(text) < 60 else text[:57] + '…'}(…)` returned when the notebook ran")


def _makes_values(node: ast.ClassDef, notebook: Notebook) -> bool:
    decorators = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
    if any(notebook.dotted(decorator) in VALUE_DECORATORS for decorator in decorators):
        return True
    return any(base in VALUE_BASES or base.startswith("enum.") for base in notebook.bases(node))


def _is_class_made_by_call(node: ast.stmt, notebook: Notebook) -> bool:
    """Whether a name is what one of CALLABLES made: `Point = namedtuple("Point", "x y")`."""
    value = getattr(node, "value", None)
    return isinstance(value, ast.Call) and notebook.dotted(value.func) in CALLABLES


def problem_of_statement(node: ast.stmt, names: list[str], name: str) -> Problem:
    """Return why a name can't travel that a statement of no other kind binds."""
    if isinstance(node, ast.Delete):
        return Problem("deleted since", "Define it again after that.")
    if isinstance(node, ast.AugAssign):
        return Problem("changed by running code", "Assign its final value in one statement.")
    word = {
        ast.For: "a `for` loop",
        ast.AsyncFor: "a `for` loop",
        ast.While: "a `while` loop",
        ast.If: "an `if`",
        ast.With: "a `with` block",
        ast.AsyncWith: "a `with` block",
        ast.Try: "a `try`",
        ast.Match: "a `match`",
    }.get(type(node), "an expression")
    inside = [inner for inner in ast.walk(node) if isinstance(inner, Function | ast.ClassDef)]
    if any(inner.name == name for inner in inside):
        return Problem(f"defined inside {word}", "Define it at the top of a cell.")
    return Problem(
        f"defined by {word} as it runs",
        "Assign it in one statement of its own, or compute it inside {user}.",
    )


def comparable(node: ast.expr) -> bool:
    """Whether an expression is literals, names and arithmetic, so that its value can be told at no cost."""
    kinds = (
        ast.Constant, ast.Name, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.BinOp, ast.UnaryOp,
        ast.operator, ast.unaryop, ast.expr_context,
    )  # fmt: skip
    return all(isinstance(inner, kinds) for inner in ast.walk(node))
