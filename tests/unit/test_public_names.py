"""The names that compatible programs import, at the paths they import them from."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import nbqueue
import nbqueue.errors

NAMES = {
    "nbqueue": """
        Actor actor Broker Consumer MessageProxy get_broker set_broker Encoder JSONEncoder
        PickleEncoder DramatiqError BrokerError DecodeError ActorNotFound QueueNotFound
        QueueJoinTimeout BrokerConnectionError ConnectionClosed ConnectionFailed
        RateLimitExceeded Retry get_logger Message get_encoder set_encoder Middleware Worker
        ConsumerThread WorkerThread __version__ start stop EnqueueError middleware results
        worker errors broker message logging
    """,
    "nbqueue.broker": "Broker Consumer MessageProxy get_broker set_broker global_broker from_url",
    "nbqueue.brokers.stub": "StubBroker",
    "nbqueue.common": """
        getenv_int compute_backoff current_millis iter_queue join_queue join_all q_name
        dq_name xq_name
    """,
    "nbqueue.encoder": "Encoder JSONEncoder PickleEncoder MessageData",
    "nbqueue.errors": """
        DramatiqError BrokerError DecodeError ActorNotFound QueueNotFound QueueJoinTimeout
        BrokerConnectionError ConnectionClosed ConnectionFailed RateLimitExceeded Retry
    """,
    "nbqueue.logging": "get_logger",
    "nbqueue.message": "Message get_encoder set_encoder generate_unique_id global_encoder",
    "nbqueue.middleware": """
        Middleware MiddlewareError SkipMessage Interrupt raise_thread_exception AgeLimit
        Callbacks CurrentMessage Pipelines Retries Shutdown ShutdownNotifications TimeLimit
        TimeLimitExceeded default_middleware
    """,
    "nbqueue.middleware.age_limit": "AgeLimit",
    "nbqueue.middleware.callbacks": "Callbacks",
    "nbqueue.middleware.current_message": "CurrentMessage",
    "nbqueue.middleware.middleware": "Middleware MiddlewareError SkipMessage",
    "nbqueue.middleware.pipelines": "Pipelines",
    "nbqueue.middleware.retries": "Retries",
    "nbqueue.middleware.shutdown": "Shutdown ShutdownNotifications",
    "nbqueue.middleware.threading": """
        Interrupt current_platform is_gevent_active raise_thread_exception supported_platforms
    """,
    "nbqueue.middleware.time_limit": "TimeLimit TimeLimitExceeded",
    "nbqueue.results": "Missing ResultBackend ResultError ResultFailure ResultTimeout ResultMissing Results",
    "nbqueue.results.backends": "StubBackend",
    "nbqueue.threading": """
        Interrupt current_platform is_gevent_active raise_thread_exception supported_platforms
    """,
    "nbqueue.worker": """
        Worker ConsumerThread WorkerThread _ConsumerThread _WorkerThread
        CONSUMER_RESTART_DELAY CONSUMER_RESTART_DELAY_SECS
        POST_PROCESS_MESSAGE_RETRY_DELAY_SECS QUEUE_PREFETCH DELAY_QUEUE_PREFETCH
        WORKER_TIMEOUT has_results_middleware
    """,
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path in NAMES for name in NAMES[path].split()])
def test_a_name_is_found_at_its_path(path: str, name: str) -> None:
    assert hasattr(importlib.import_module(path), name)


def test_everything_in_all_is_there() -> None:
    for room in ("", ".middleware", ".results", ".results.backends", ".worker"):
        module = importlib.import_module(f"nbqueue{room}")
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_actor_attribute_of_the_package_is_the_decorator() -> None:
    assert callable(nbqueue.actor)
    assert isinstance(nbqueue.__version__, str)


@pytest.mark.parametrize("module", [nbqueue, nbqueue.errors])
def test_connection_error_is_deprecated(module: object) -> None:
    with pytest.warns(DeprecationWarning, match="ConnectionError"):
        assert module.ConnectionError is nbqueue.BrokerConnectionError  # type: ignore[attr-defined]
    assert "ConnectionError" not in nbqueue.__all__


@pytest.mark.parametrize("module", [nbqueue, nbqueue.errors])
def test_other_unknown_names_are_missing_attributes(module: object) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # type: ignore[attr-defined]


def test_errors_have_the_documented_ancestors() -> None:
    from nbqueue import errors, middleware, results

    ancestors = {
        errors.DecodeError: errors.DramatiqError,
        errors.BrokerError: errors.DramatiqError,
        errors.ActorNotFound: errors.BrokerError,
        errors.QueueNotFound: errors.BrokerError,
        errors.BrokerConnectionError: errors.BrokerError,
        errors.ConnectionFailed: errors.BrokerConnectionError,
        errors.ConnectionClosed: errors.BrokerConnectionError,
        errors.QueueJoinTimeout: errors.DramatiqError,
        errors.RateLimitExceeded: errors.DramatiqError,
        errors.Retry: errors.DramatiqError,
        results.ResultError: errors.DramatiqError,
        results.ResultTimeout: results.ResultError,
        results.ResultMissing: results.ResultError,
        results.ResultFailure: results.ResultError,
        middleware.SkipMessage: middleware.MiddlewareError,
        middleware.TimeLimitExceeded: middleware.Interrupt,
        middleware.Shutdown: middleware.Interrupt,
    }
    for error, ancestor in ancestors.items():
        assert issubclass(error, ancestor)
    assert not issubclass(middleware.MiddlewareError, errors.DramatiqError)
    assert not issubclass(middleware.Interrupt, Exception)


def test_errors_say_what_they_were_raised_with() -> None:
    assert str(nbqueue.DramatiqError("x")) == nbqueue.DramatiqError("x").message == "x"
    assert str(nbqueue.DramatiqError(OSError())) == "OSError()"
    assert (nbqueue.Retry().message, nbqueue.Retry().delay, nbqueue.Retry("m", 5).delay) == ("", None, 5)
    with pytest.raises(TypeError):
        nbqueue.DramatiqError()  # type: ignore[call-arg]


def test_importing_the_stub_result_backend_never_warns() -> None:
    program = "from nbqueue.results.backends import StubBackend"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=20)
