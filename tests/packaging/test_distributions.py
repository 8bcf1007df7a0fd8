"""What is published is what is under version control, and says of itself what pyproject.toml says."""

from __future__ import annotations

import email
import re
import tarfile
import zipfile
from email.message import Message

import nbqueue

from .conftest import EXTRAS, LITTER, PROJECT, ROOT, Distributions


def in_sdist(distributions: Distributions) -> set[str]:
    with tarfile.open(distributions.sdist) as archive:
        (top,) = {name.partition("/")[0] for name in archive.getnames()}
        assert top == f"nbqueue-{nbqueue.__version__}"
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def in_wheel(distributions: Distributions) -> set[str]:
    with zipfile.ZipFile(distributions.wheel) as archive:
        return set(archive.namelist())


def metadata(distributions: Distributions) -> Message:
    with zipfile.ZipFile(distributions.wheel) as archive:
        return email.message_from_bytes(archive.read(f"nbqueue-{nbqueue.__version__}.dist-info/METADATA"))


def test_the_sdist_is_what_is_under_version_control(distributions: Distributions) -> None:
    assert len(distributions.files) > 300
    assert in_sdist(distributions) == distributions.files | {"PKG-INFO"}


def test_the_wheel_is_the_package_alone(distributions: Distributions) -> None:
    package = {path for path in distributions.files if path.startswith("nbqueue/")}
    assert {path.rpartition(".")[2] for path in package} == {"py", "lua", "js", "css", "typed"}
    about = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    info = {f"nbqueue-{nbqueue.__version__}.dist-info/{name}" for name in about}
    assert in_wheel(distributions) == package | {"nbqueue_gevent.py"} | info


def test_what_lies_about_is_not_published(distributions: Distributions) -> None:
    litter = set(LITTER)
    assert not litter & distributions.files
    assert not litter & (in_sdist(distributions) | in_wheel(distributions))


def test_files_are_published_as_they_are(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if path == "PKG-INFO":
                continue
            published = archive.extractfile(member)
            assert published is not None
            assert published.read() == (ROOT / path).read_bytes(), path
            assert bool(member.mode & 0o100) == bool((ROOT / path).stat().st_mode & 0o100), path
    with zipfile.ZipFile(distributions.wheel) as archive:
        for path in in_wheel(distributions) & distributions.files:
            assert archive.read(path) == (ROOT / path).read_bytes(), path


def test_the_wheel_runs_on_every_machine_with_a_python_that_is_new_enough(
    distributions: Distributions,
) -> None:
    assert distributions.wheel.name == f"nbqueue-{nbqueue.__version__}-py3-none-any.whl"
    said = metadata(distributions)
    assert said["Requires-Python"] == PROJECT["project"]["requires-python"]
    lowest = str(said["Requires-Python"]).removeprefix(">=")
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", str(said))
    assert min(named, key=lambda number: int(number.partition(".")[2])) == lowest
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"


def test_the_metadata_says_what_it_is(distributions: Distributions) -> None:
    said = metadata(distributions)
    assert (said["Name"], said["Version"]) == ("nbqueue", nbqueue.__version__)
    assert PROJECT["project"]["version"] == nbqueue.__version__
    assert said["License-Expression"] == "MIT"
    assert said["License-File"] == "LICENSE"
    assert said["Description-Content-Type"] == "text/markdown"
    readme = said.get_payload(decode=True)
    assert isinstance(readme, bytes)
    assert readme.strip() == (ROOT / "README.md").read_bytes().strip()
    with zipfile.ZipFile(distributions.wheel) as archive:
        licence = archive.read(f"nbqueue-{nbqueue.__version__}.dist-info/licenses/LICENSE")
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_every_extra_is_published_and_all_is_all_of_them(distributions: Distributions) -> None:
    assert set(metadata(distributions).get_all("Provides-Extra") or []) == {*EXTRAS, "all"}
    (everything,) = PROJECT["project"]["optional-dependencies"]["all"]
    assert everything == f"nbqueue[{','.join(EXTRAS)}]"


def test_a_package_has_the_same_bounds_wherever_it_is_named() -> None:
    groups = {**EXTRAS, **PROJECT["dependency-groups"], "": PROJECT["project"]["dependencies"]}
    bounds: dict[str, set[str]] = {}
    for needed in groups.values():
        for requirement in needed:
            if isinstance(requirement, str):
                match = re.fullmatch(r"([\w-]+(?:\[\w+\])?)(.*)", requirement)
                assert match is not None, requirement
                bounds.setdefault(match[1], set()).add(match[2])
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}
    assert [name for name, found in bounds.items() if ">=" not in str(found)] == []


def test_the_page_on_installing_names_the_lowest_versions() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page, re.M))
    assert set(rows) == {*EXTRAS, "all"}
    said = [(rows[name], requirement) for name, needed in EXTRAS.items() for requirement in needed]
    said += [(page, requirement) for requirement in PROJECT["project"]["dependencies"]]
    for text, requirement in said:
        match = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", requirement)
        assert match is not None, requirement
        assert f"{match[1]} {match[2]}" in text, requirement
