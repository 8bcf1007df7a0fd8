"""The stylesheet that travels with each output: of `static/nbqueue.css` the rules that the output needs.

Outputs are islands in some front ends and in saved notebooks, so that each brings its own rules along; a few
kB in all. Rules are nested under `.nbqueue`, as they stand in the file under `:is(.nbqueue, #nbqueue)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from .markup import Markup, element

#: What every rule in the file hangs under.
_ROOT = ":is(.nbqueue, #nbqueue)"
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_AROUND = re.compile(r"\s*([{};,>])\s*|\s*(:)\s+")
_VARIABLE = re.compile(r"--nbq-[\w-]+")
#: What a selector asks for: a class, the value of an attribute, a tag.
_WANTED = re.compile(r"\.(nbq-[\w-]+)|(\[[\w-]+=\"[\w-]+\"\])|(?<![\w.:#\"\[=-])([a-z][a-z0-9]*)(?![\w(\"-])")


@dataclass(frozen=True)
class Rule:
    """Selectors with their declarations; an at-rule has its condition, and rules (or key frames) inside."""

    selectors: tuple[str, ...]
    body: str = ""
    condition: str = ""
    inner: tuple[Rule, ...] = ()

    @property
    def frames(self) -> bool:
        """Whether these are the frames of an animation."""
        return bool(self.condition) and not self.inner


def full() -> str:
    """Return the whole stylesheet, as it is in the file."""
    return (files(__package__) / "static" / "nbqueue.css").read_text("utf-8")


@lru_cache(maxsize=64)
def _style(classes: frozenset[str]) -> Markup:
    kept = [kept for rule in _rules() if (kept := _needed(rule, classes)) is not None]
    nested = "".join(_written(rule) for rule in kept if not rule.frames)
    frames = "".join(_written(rule) for rule in kept if rule.frames)  # these can't be nested
    used = set(_VARIABLE.findall(nested))
    declarations = [part for part in _base().split(";") if part]
    while True:  # variables that others are made of are used, too
        lines = [part for part in declarations if part.partition(":")[0] in used or part[:2] != "--"]
        found = used | {name for line in lines for name in _VARIABLE.findall(line)}
        if found == used:
            break
        used = found
    root = _ROOT.replace(" ", "")
    return element("style", Markup(f".nbqueue{{{';'.join(lines)}}}{root}{{{nested}}}{frames}"))


def style_for(markup: str) -> Markup:
    """Return the `style` element with the rules that some HTML needs."""
    tags = re.findall(r"<([a-z][a-z0-9]*)", markup)
    classes = [name for value in re.findall(r'class="([^"]*)"', markup) for name in value.split()]
    states = [
        f'[data-nbqueue-state="{name}"]' for name in re.findall(r'data-nbqueue-state="([\w-]+)"', markup)
    ]
    return _style(frozenset([*tags, *classes, *states]))


def _needed(rule: Rule, present: frozenset[str]) -> Rule | None:
    if rule.inner:
        inner = tuple(kept for one in rule.inner if (kept := _needed(one, present)) is not None)
        return Rule(rule.selectors, rule.body, rule.condition, inner) if inner else None
    if rule.frames:  # of the one animation: the mark of what runs
        return rule if "nbq-chip" in present and '[data-nbqueue-state="running"]' in present else None
    selectors = tuple(one for one in rule.selectors if _asked(one) <= present)
    return Rule(selectors, rule.body) if selectors else None


@lru_cache(maxsize=256)
def _asked(selector: str) -> frozenset[str]:
    return frozenset(next(filter(None, found)) for found in _WANTED.findall(selector.replace(_ROOT, "")))


def _written(rule: Rule) -> str:
    if rule.inner:
        return f"{rule.condition}{{{''.join(map(_written, rule.inner))}}}"
    if rule.frames:
        return f"{rule.condition}{{{rule.body}}}"
    return f"{','.join(map(_nested, rule.selectors))}{{{rule.body}}}"


def _nested(selector: str) -> str:
    """Return a selector as it stands inside the root's rule."""
    rest = selector.removeprefix(_ROOT)
    own = not rest.startswith(" ")
    rest = re.sub(r"\s*>\s*", ">", rest.strip())
    if own or rest[0].isalpha() or rest[0] == "*":
        return f"&{rest}" if own else f"& {rest}"  # a tag at the beginning needs the `&` in older browsers
    return rest


@lru_cache(maxsize=1)
def _parsed() -> tuple[str, tuple[Rule, ...]]:
    """Return the declarations of the root, and the rules below it."""
    base, rules = "", []
    for rule in _parse(_COMMENT.sub("", full())):
        if rule.selectors == (".nbqueue",):
            base = rule.body
        else:
            rules.append(rule)
    return base, tuple(rules)


def _base() -> str:
    return _parsed()[0]


def _rules() -> tuple[Rule, ...]:
    return _parsed()[1]


def _parse(text: str) -> list[Rule]:
    rules = []
    position = 0
    while (opened := text.find("{", position)) >= 0:
        head = " ".join(text[position:opened].split())
        closed = _closing(text, opened)
        body = text[opened + 1 : closed]
        if head.startswith("@keyframes"):
            rules.append(Rule((), _tight(body), head))
        elif head.startswith("@"):
            rules.append(Rule((), "", head, tuple(_parse(body))))
        else:
            rules.append(Rule(_split(head), _tight(body)))
        position = closed + 1
    return rules


def _closing(text: str, opened: int) -> int:
    depth = 0
    for found in re.compile("[{}]").finditer(text, opened):
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return found.start()
    raise ValueError("The stylesheet has a block without an end.")


def _split(head: str) -> tuple[str, ...]:
    """Return the selectors of a list; commas in parentheses belong to a selector."""
    return tuple(part.strip() for part in re.split(r",(?![^(]*\))", head))


def _tight(body: str) -> str:
    return _AROUND.sub(lambda found: found[1] or found[2], body.strip()).rstrip(";")
