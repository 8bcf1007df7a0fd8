"""How a run ends that can't begin: its exit code, and what is said, which is short and keeps secrets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ..servers import RabbitmqServer, RedisServer
from ..servers.server import free_port
from .conftest import Site

PASSWORD = "swordfish"


# -- modules -----------------------------------------------------------------------------------------------


def test_of_a_module_that_fails_only_the_users_traceback_is_shown(site: Site) -> None:
    site.write("broken.py", "import tasks\n\ndef divide():\n    return 1 / 0\n\ndivide()\n")
    run = site.serve("broken", "-p", "2")
    assert run.ends() == 2
    assert "ZeroDivisionError: division by zero" in run.output
    frames = [line for line in run.output.splitlines() if line.lstrip().startswith("File ")]
    assert len({line for line in frames if "broken.py" in line}) == 2
    assert all("broken.py" in line for line in frames), run.output


def test_a_syntax_error_is_shown_where_it_is(site: Site) -> None:
    site.write("broken.py", "import tasks\n\ndef (:\n")
    run = site.serve("broken", "-p", "1")
    assert run.ends() == 2
    assert "SyntaxError" in run.output
    assert 'broken.py", line 3' in run.output
    assert "importlib" not in run.output


def test_a_missing_import_of_the_module_is_the_modules_fault(site: Site) -> None:
    site.write("broken.py", "import tasks\nimport not_installed_here\n")
    run = site.serve("broken", "-p", "1")
    assert run.ends() == 2
    assert "No module named 'not_installed_here'" in run.output
    assert 'broken.py", line 2' in run.output


@pytest.mark.parametrize(
    "ending", ["raise SystemExit(0)", "raise SystemExit('over')", "raise KeyboardInterrupt"]
)
def test_a_module_that_exits_can_not_be_served(site: Site, ending: str) -> None:
    site.write("broken.py", f"import tasks\n{ending}\n")
    run = site.serve("broken", "-p", "1")
    assert run.ends() == 2
    assert 'broken.py", line 2' in run.output


def test_a_second_module_that_fails_ends_the_run_as_well(site: Site) -> None:
    site.write("broken.py", "import tasks\n1 / 0\n")
    run = site.serve("tasks", "broken", "-p", "2")
    assert run.ends() == 2
    assert "ZeroDivisionError" in run.output


def test_a_process_that_dies_at_its_first_import_ends_the_run(site: Site) -> None:
    site.write("broken.py", "import os\nos._exit(7)\n")
    run = site.serve("broken", "-p", "1")
    assert run.ends() == 7
    assert "ended with exit code 7" in run.output


# -- servers -----------------------------------------------------------------------------------------------


def refused(site: Site, url: str) -> str:
    """Serve on a server that can't be used; return what was said of it."""
    run = site.serve("tasks", "-p", "2", "--broker-url", url)
    assert run.ends() == 3
    assert "Traceback" not in run.output
    assert PASSWORD not in run.output
    said = [line for line in run.output.splitlines() if "can't start" in line]
    assert len(said) == 1, run.output
    return said[0]


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_port_where_nobody_listens(bare_site: Site, scheme: str) -> None:
    port = free_port()
    said = refused(bare_site, f"{scheme}://user:{PASSWORD}@127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in said


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_server_that_says_nothing(bare_site: Site, silent_port: int, scheme: str) -> None:
    said = refused(bare_site, f"{scheme}://user:{PASSWORD}@127.0.0.1:{silent_port}")
    assert f"127.0.0.1:{silent_port}" in said


def test_a_wrong_password_of_redis(bare_site: Site) -> None:
    with RedisServer(password="right") as server:
        said = refused(bare_site, f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0")
        assert "password" in said
        assert str(server.port) in said


def test_a_wrong_password_of_rabbitmq(bare_site: Site, rabbitmq_server: RabbitmqServer) -> None:
    said = refused(bare_site, f"amqp://guest:{PASSWORD}@127.0.0.1:{rabbitmq_server.port}/")
    assert str(rabbitmq_server.port) in said


def test_a_host_that_is_none(bare_site: Site) -> None:
    assert "no-such-host.invalid" in refused(bare_site, f"redis://:{PASSWORD}@no-such-host.invalid:6379/0")


def test_a_module_that_sends_while_it_is_imported(bare_site: Site) -> None:
    bare_site.write("eager.py", "import tasks\ntasks.work.send('early')\n")
    run = bare_site.serve("eager", "-p", "1", "--broker-url", f"redis://127.0.0.1:{free_port()}/0")
    assert run.ends() == 3
    assert "Traceback" not in run.output


# -- the pid file --------------------------------------------------------------------------------------------


def test_the_pid_file_is_there_while_the_run_lasts(site: Site) -> None:
    path = site.folder / "serve.pid"
    run = site.serve("tasks", "-p", "1", "--pid-file", str(path)).ready()
    assert path.read_text() == str(run.pid)
    assert path.stat().st_mode & 0o777 == 0o644
    assert run.stop() == 0
    assert not path.exists()


def test_a_pid_file_of_a_run_that_lives_is_respected(site: Site) -> None:
    path = site.folder / "serve.pid"
    first = site.serve("tasks", "-p", "1", "--pid-file", str(path)).ready()
    second = site.serve("tasks", "-p", "1", "--pid-file", str(path))
    assert second.ends() == 4
    assert f"already running with PID {first.pid}" in second.output
    assert path.read_text() == str(first.pid)
    assert first.stop() == 0


def test_a_pid_file_of_a_process_that_is_gone_is_replaced(site: Site) -> None:
    path = site.folder / "serve.pid"
    killed = site.serve("tasks", "-p", "1", "--pid-file", str(path)).ready()
    killed.close()
    assert path.read_text() == str(killed.pid)
    run = site.serve("tasks", "-p", "1", "--pid-file", str(path)).ready()
    assert path.read_text() == str(run.pid)


@pytest.mark.parametrize("text", ["seven", "-1", "1 2", "²"])
def test_a_pid_file_that_holds_no_pid_is_left_alone(site: Site, text: str) -> None:
    path = site.folder / "serve.pid"
    path.write_text(text)
    run = site.serve("tasks", "-p", "1", "--pid-file", str(path))
    assert run.ends() == 4
    assert path.read_text() == text
    assert str(path) in run.output
    assert "Traceback" not in run.output


def test_an_empty_pid_file_is_used(site: Site) -> None:
    path = site.folder / "serve.pid"
    path.touch()
    run = site.serve("tasks", "-p", "1", "--pid-file", str(path)).ready()
    assert path.read_text() == str(run.pid)


def test_a_pid_file_that_can_not_be_written_ends_the_run(site: Site) -> None:
    run = site.serve("tasks", "-p", "1", "--pid-file", str(site.folder / "no" / "serve.pid"))
    assert run.ends() == 4
    assert "can't be written" in run.output
    (site.folder / "folder").mkdir()
    run = site.serve("tasks", "-p", "1", "--pid-file", str(site.folder / "folder"))
    assert run.ends() == 4
    assert "Traceback" not in run.output


def test_a_run_that_can_not_begin_leaves_no_pid_file(site: Site) -> None:
    path = site.folder / "serve.pid"
    assert site.serve("missing", "-p", "1", "--pid-file", str(path)).ends() == 2
    assert not path.exists()


def test_a_pid_file_that_another_took_over_is_not_removed(site: Site) -> None:
    path = site.folder / "serve.pid"
    run = site.serve("tasks", "-p", "1", "--pid-file", str(path)).ready()
    path.write_text("1")
    assert run.stop() == 0
    assert path.read_text() == "1"


@pytest.mark.parametrize("how", [[], ["--use-spawn"]])
def test_nothing_else_is_left_in_the_temporary_folder(site: Site, how: list[str]) -> None:
    assert site.serve("tasks", "-p", "1", "--pid-file", "no/such/folder/pid", *how).ends() == 4
    assert site.serve("missing", "-p", "1", *how).ends() == 2
    run = site.serve("tasks", "-p", "1", *how).ready()
    run.process.kill()
    run.ends()
    assert not list(site.temporary.glob("nbqueue-*"))
