"""Every block of code in the documentation does what it says: it is run, or at least understood.

The Python blocks of a page run one after the other in one process, those of a page with magics in a kernel.
What a page takes for granted (`broker`, `rows()`) comes from `before/`, from the file with the page's name.
Command lines are given to the parsers that they are meant for.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import click
import pytest
import yaml

from nbqueue.cli import make_argument_parser
from nbqueue.cli.app import COMMANDS, app
from nbqueue.notebook.commands import COMMANDS as MAGICS

from ..notebooks.conftest import Notebook
from .pages import PAGES, ROOT, Block, blocks, spans
from .run_page import agrees, shown

BLOCKS = [block for page in PAGES for block in blocks(page)]
BEFORE = Path(__file__).parent / "before"
SHELLS = ("bash", "sh", "console", "")
#: Languages that are looked at below, and those that are only shown.
CHECKED = ("python", "ipython3", *SHELLS, "json", "yaml")
DIRECTIVES = ("{eval-rst}", "{toctree}", "{include}", "{image}")
ONLY_SHOWN = ("text", "ini", "conf", "dockerfile", "mermaid", *DIRECTIVES)

#: What a page calls its server, and the fixture that has one in its place.
SERVERS = [
    (r"redis://localhost(:6379)?(/0)?(?![\w/])", "redis_url"),
    (r"amqp://(guest:guest@)?localhost(:5672)?(/%2[fF]|/)?(?![\w/])", "rabbitmq_url"),
    (r"memcached://localhost(:11211)?(?![\w/])", "memcached_url"),
    (r"localhost:11211", "memcached_address"),
]


@pytest.fixture
def memcached_address(memcached_url: str) -> str:
    return memcached_url.removeprefix("memcached://")


def is_program(block: Block) -> bool:
    return block.language in ("python", "ipython3")


def with_servers(source: str, request: pytest.FixtureRequest) -> str:
    """Return a source with the addresses of servers of these tests."""
    for pattern, fixture in SERVERS:
        if re.search(pattern, source):
            source = re.sub(pattern, request.getfixturevalue(fixture), source)
    return source


def program_of(page: str) -> list[Block]:
    """Return what runs of a page: what comes before it, then its blocks that are no files."""
    path = BEFORE / f"{page.removeprefix('docs/').removesuffix('.md').replace('/', '-')}.py"
    before = [Block(str(path.relative_to(ROOT)), 1, "python", path.read_text())] if path.exists() else []
    return before + [block for block in blocks(page) if is_program(block) and not block.file]


def write_files(page: str, folder: Path, request: pytest.FixtureRequest) -> None:
    for block in blocks(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(with_servers(block.source, request))


PROGRAMS = [page for page in PAGES if any(is_program(b) for b in blocks(page))]
IN_KERNELS = [page for page in PROGRAMS if any(block.has_magics for block in program_of(page))]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NBQUEUE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("page", [page for page in PROGRAMS if page not in IN_KERNELS])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_files(page, tmp_path, request)
    program = [(str(ROOT / b.page), b.line, with_servers(b.source, request)) for b in program_of(page)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "run_page.py")],
        input=json.dumps(program),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", IN_KERNELS)
def test_the_cells_of_a_page_run(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_files(page, tmp_path, request)
    notebook = Notebook()
    try:
        notebook.run(f"import os, sys\nos.chdir({str(tmp_path)!r})\nsys.path.insert(0, '')")
        for block in program_of(page):
            outputs = notebook.run(with_servers(block.source, request), timeout=60)
            assert outputs.error == "", f"{block}\n{outputs.traceback}"
            if shown(block.source):
                printed = outputs.stdout + (f"{outputs.result}\n" if outputs.result else "")
                assert agrees(printed, shown(block.source)), f"{block} shows\n{printed}"
    finally:
        notebook.close()


def test_no_program_passes_for_something_else() -> None:
    """A block of Python that isn't called one would not run; nor would one in the language of Sphinx."""
    data = ("json", "yaml", "conf", "ini")
    others = [block for block in BLOCKS if not is_program(block) and block.language not in data]
    assert len(others) > 50
    assert [str(block) for block in others if looks_like_python(block.source)] == []
    assert [str(block) for block in others if "code-block::" in block.source] == []


def looks_like_python(source: str) -> bool:
    """Whether a text can be read as Python that does something, more than to name a thing or a value."""
    try:
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith("%")))
    except SyntaxError:
        return False
    does = (ast.Call, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.Assert)
    return any(isinstance(node, does) for node in ast.walk(tree))


def test_python_is_told_from_what_only_looks_like_it() -> None:
    assert looks_like_python("print(1)")
    assert looks_like_python("%load_ext nbqueue\nimport nbqueue")
    assert not looks_like_python("nbqueue serve tasks -p 4")
    assert not looks_like_python('{"status": "ok"}')


@pytest.mark.parametrize("page", PAGES)
def test_every_shown_output_is_one_that_is_compared(page: str) -> None:
    """`# -> ` stands at the beginning of a line, in a block that runs, and is more than `...`."""
    compared = {
        (block.line + number, line)
        for block in program_of(page)
        if block.page == page and not block.page.endswith(".py")
        for number, line in enumerate(block.source.splitlines())
        if re.match(r" *# -> (?!\.\.\.$)", line)
    }
    claimed = {
        (number, line)
        for number, line in enumerate((ROOT / page).read_text().splitlines(), 1)
        if re.search(r"#\s*(->|→|=>)", line) and "`# -> " not in line
    }
    assert {(number, line.strip()) for number, line in claimed} == {(n, line.strip()) for n, line in compared}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.file], ids=str)
def test_every_file_of_a_page_is_used(block: Block) -> None:
    """A file is imported by what is on its page, or it is one that pytest finds, which the page runs."""
    name = (block.file or "").removesuffix(".py").replace("/", ".")
    used = re.compile(rf"^(?:from|import) {re.escape(name)}\b|^%nbqueue serve {re.escape(name)}\b", re.M)
    page = [other for other in BLOCKS if other.page == block.page and is_program(other)]
    runs_pytest = any('"pytest"' in other.source for other in page if not other.file)
    assert (
        runs_pytest
        if re.match(r"conftest$|test_", name)
        else any(used.search(other.source) for other in page if other != block)
    )


def test_every_language_is_known() -> None:
    assert {
        str(block): block.language for block in BLOCKS if block.language not in CHECKED + ONLY_SHOWN
    } == {}


def test_what_comes_before_a_page_belongs_to_one() -> None:
    names = {page.removeprefix("docs/").removesuffix(".md").replace("/", "-") for page in PAGES}
    assert {path.stem for path in BEFORE.glob("*.py")} <= names


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("json", "yaml")], ids=str)
def test_data_can_be_read(block: Block) -> None:
    if block.language == "yaml":
        assert list(yaml.safe_load_all(block.source))
    else:
        assert json.loads(block.source)


# -- command lines -----------------------------------------------------------------------------------------

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
EXTRAS = set(metadata("nbqueue").get_all("Provides-Extra") or [])
_STARTS = re.compile(r"(\w+=\S* |export |sudo |\$ )*(nbqueue|nbqueue-gevent|make|pip|python3? -m nbqueue) ")


def command_lines(block: Block) -> Iterator[str]:
    """Yield the command lines of a block; of one without a language, those of programs checked here."""
    for line in block.source.replace("\\\n", " ").splitlines():
        line = line.strip()
        if block.language == "console":
            if line.startswith("$ "):
                yield line[2:]
        elif block.language or _STARTS.match(line) or line.startswith("%nbqueue"):
            yield line.removeprefix("$ ")


def commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each command in a line, without variables, redirections and comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if word[0] in "<>":
            skip = True
        elif word[0] in "|&;":
            while words and ("=" in words[0] or words[0] in ("export", "sudo", "env")):
                del words[0]
            if words:
                yield words
            words = []
        elif not skip:
            words.append(word)
        else:
            skip = False


def understand(command: click.Command, words: list[str]) -> None:
    """Have a command and those in it read their words; UsageError when they can't."""
    context = command.make_context(command.name, list(words))
    if isinstance(command, click.Group) and words:
        _, inner, rest = command.resolve_command(context, list(words))
        assert inner is not None
        understand(inner, rest)


def check(words: list[str]) -> None:
    """Raise when a command can't be what is meant."""
    if words[:3] == ["python", "-m", "nbqueue"] and len(words) > 3:
        words = ["nbqueue", *(words[3:] if words[3] in COMMANDS else ["serve", *words[3:]])]
    if words[0] in ("nbqueue", "nbqueue-gevent") and len(words) > 1:
        if len(words) == 2:
            assert words[1] in COMMANDS or words[1].startswith("--"), words
        elif words[1] == "serve":
            make_argument_parser().parse_args(words[2:])
        else:
            understand(app, words[1:])
    elif words[0] == "%nbqueue":
        assert len(words) == 1 or words[1] in MAGICS, words
    elif words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS, words
    elif words[:2] == ["pip", "install"]:
        for extras in re.findall(r"nbqueue\[(.*?)\]", " ".join(words)):
            assert set(extras.split(",")) <= EXTRAS, words


def test_every_option_of_the_command_line_is_on_its_page() -> None:
    serve, rest = ((ROOT / "docs" / f"{page}.md").read_text() for page in ("serve", "command-line"))
    rest += (ROOT / "docs" / "promote.md").read_text()
    ours = [action.option_strings for action in make_argument_parser()._actions if action.option_strings]
    others = [option.opts for option in options_within(app)]
    assert len(ours) > 20
    assert len(others) > 20
    assert [names for names in ours if not re.search(rf"`({'|'.join(names)})\b", serve)] == []
    assert [names for names in others if not re.search(rf"[ `]({'|'.join(names)})\b", rest)] == []


def options_within(command: click.Command) -> Iterator[click.Parameter]:
    """Yield the options of a command and of those in it, but for what `serve` hands on to its own parser."""
    yield from (parameter for parameter in command.params if isinstance(parameter, click.Option))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options_within(inner)


def mentioned(words: list[str]) -> None:
    """Check a command in a sentence, which may stop at an option whose value doesn't matter there."""
    if words[-1] == "--help":
        words = words[:-1]
    try:
        check(words)
    except (SystemExit, click.UsageError):
        check([*words, "1", "tasks"] if words[1] == "serve" else [*words, "1"])


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in SHELLS], ids=str)
def test_command_lines_are_understood(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if block.language in ("bash", "sh"):
        subprocess.run(["bash", "-n"], input=block.source, text=True, check=True, timeout=20)
    for line in command_lines(block):
        for words in commands(line):
            check(words)


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_within_the_text_are_understood(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for span in spans(page):
        if _STARTS.match(f"{span} ") and not re.search(r"[…A-Z]{3}|…|TARGET", span):
            for words in commands(span):
                mentioned(words)
