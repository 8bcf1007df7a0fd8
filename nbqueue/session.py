"""The session profile, and brokers made from URLs and the environment.

Every broker that nbqueue itself makes carries the profile: it stores results, keeps the state of messages,
runs async actors and group callbacks. What a URL doesn't say comes from the environment:
`NBQUEUE_RESULTS_URL`, `NBQUEUE_STATE_URL` and `NBQUEUE_NAMESPACE`; results and state of a Redis broker
default to its own server. A broker in memory keeps them in its process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .logging import get_logger
from .middleware import AsyncIO, CurrentMessage, GroupCallbacks, Middleware, Retries, default_middleware
from .rate_limits.backends import StubBackend as StubLimits
from .results import Results
from .results.backends.stub import HandleBackend
from .running import is_interactive
from .state import State
from .state.backends import StubBackend as StubStates

if TYPE_CHECKING:
    from .broker import Broker
    from .rate_limits import RateLimiterBackend
    from .results import ResultBackend
    from .state import StateBackend

logger = get_logger(__name__)

DEFAULT_NAMESPACE = "dramatiq"
BROKER_SCHEMES = ("redis", "rediss", "unix", "amqp", "amqps", "stub")
RESULTS_SCHEMES = ("redis", "rediss", "unix", "memcached", "stub")
STATE_SCHEMES = ("redis", "rediss", "unix", "stub")


def session_middleware(
    results: ResultBackend | None = None,
    states: StateBackend | None = None,
    limits: RateLimiterBackend | None = None,
) -> list[Middleware]:
    """Return the session profile, in memory where no backend is given.

    In an interactive session an actor that names no `max_retries` isn't retried: its error shows now.
    """
    # State comes first: what the others make of a message (too old, failed after all) is known when it ends.
    profile: list[Middleware] = [State(states or StubStates())]
    profile += [
        Retries(unasked=not is_interactive()) if kind is Retries else kind() for kind in default_middleware
    ]
    profile.append(Results(backend=results or HandleBackend(), store_results=True))
    profile.append(AsyncIO(lazy=True))
    profile.append(GroupCallbacks(limits or StubLimits()))
    profile.append(CurrentMessage())
    return profile


def broker_from_url(
    url: str, *, profile: bool = False, results_url: str | None = None, state_url: str | None = None
) -> Broker:
    """Return a broker for a URL; see `nbqueue.broker.from_url`.

    Parameters:
      results_url, state_url: where the profile keeps results and states; by default what the environment
        says, or else the broker's own server.

    Raises:
      ValueError: a URL that can't be, or that a broker in memory would not use.
    """
    check_broker_url(url)
    scheme = _scheme(url)
    if scheme == "stub":
        from .brokers.stub import StubBroker

        check_kept_in_memory(results_url, state_url)
        if profile:
            warn_of_unused_urls()
        broker: Broker = StubBroker(middleware=session_middleware() if profile else None)
    elif scheme in ("redis", "rediss", "unix"):
        broker = _redis_broker(url, profile, results_url, state_url)
    else:
        broker = _rabbitmq_broker(url, profile, results_url, state_url)
    broker.session_profile = profile
    return broker


def check_broker_url(url: str) -> None:
    """Raise ValueError, with what to write instead, when there is no broker for such a URL."""
    if _scheme(url) not in BROKER_SCHEMES:
        raise ValueError(
            f"There is no broker for {_scheme(url) + '://'!r}. "
            "Use redis://, rediss://, amqp://, amqps:// or stub://."
        )


def check_results_url(url: str) -> None:
    """Raise ValueError, with what to write instead, when results can't be kept at such a URL."""
    if _scheme(url) not in RESULTS_SCHEMES:
        raise ValueError(
            f"There are no results in {_scheme(url) + '://'!r}. "
            "Use redis://, rediss://, memcached:// or stub://."
        )


def check_state_url(url: str) -> None:
    """Raise ValueError, with what to write instead, when states can't be kept at such a URL."""
    if _scheme(url) not in STATE_SCHEMES:
        raise ValueError(
            f"Message states can't be kept in {_scheme(url) + '://'!r}. Use redis://, rediss:// or stub://."
        )


def check_kept_in_memory(*urls: str | None) -> None:
    """Raise ValueError when results or states of a broker in memory are to be kept somewhere else."""
    if any(url is not None and _scheme(url) != "stub" for url in urls):
        raise ValueError(
            "The broker in memory keeps its results and message states in this process: "
            "leave out their URLs, or use a broker on a server."
        )


def warn_of_unused_urls() -> None:
    """Log a warning when the environment says where results or states are, and the broker is in memory."""
    urls = {name: os.environ.get(name) for name in ("NBQUEUE_RESULTS_URL", "NBQUEUE_STATE_URL")}
    if unused := [name for name, url in urls.items() if url and not url.startswith("stub:")]:
        logger.warning(
            "The broker in memory keeps its results and message states in this process: %s without effect. "
            "Set NBQUEUE_BROKER_URL to use a server.",
            f"{' and '.join(unused)} {'is' if len(unused) == 1 else 'are'}",
        )


def results_from_url(url: str) -> ResultBackend:
    """Return a result backend for `redis://`, `rediss://`, `memcached://` or `stub://`."""
    check_results_url(url)
    scheme = _scheme(url)
    if scheme == "stub":
        return HandleBackend()
    if scheme in ("redis", "rediss", "unix"):
        from .results.backends.redis import RedisBackend

        return RedisBackend(url=url)
    from .results.backends.memcached import MemcachedBackend

    return MemcachedBackend(url=url)


def state_from_url(url: str) -> StateBackend:
    """Return a state backend for `redis://`, `rediss://` or `stub://`."""
    check_state_url(url)
    if _scheme(url) == "stub":
        return StubStates()
    from .state.backends.redis import RedisBackend

    return RedisBackend(url=url)


def _redis_broker(url: str, profile: bool, results_url: str | None, state_url: str | None) -> Broker:
    from .brokers.redis import RedisBroker

    namespace = os.environ.get("NBQUEUE_NAMESPACE", DEFAULT_NAMESPACE)
    if not profile:
        return RedisBroker(url=url, namespace=namespace)
    from .rate_limits.backends.redis import RedisBackend as RedisLimits

    results_url = results_url or os.environ.get("NBQUEUE_RESULTS_URL") or url
    state_url = state_url or os.environ.get("NBQUEUE_STATE_URL") or url
    middleware = session_middleware(
        results_from_url(results_url), state_from_url(state_url), RedisLimits(url=url)
    )
    return RedisBroker(url=url, namespace=namespace, middleware=middleware)


def _rabbitmq_broker(url: str, profile: bool, results_url: str | None, state_url: str | None) -> Broker:
    """RabbitMQ keeps neither results nor states: without a URL for them the broker does without."""
    from .brokers.rabbitmq import RabbitmqBroker

    if not profile:
        return RabbitmqBroker(url=url)
    results_url = results_url or os.environ.get("NBQUEUE_RESULTS_URL")
    state_url = state_url or os.environ.get("NBQUEUE_STATE_URL")
    if state_url is None and results_url is not None and _scheme(results_url) != "memcached":
        state_url = results_url
    left_out: set[type[Middleware]] = set()
    if results_url is None:
        left_out |= {Results, GroupCallbacks}
    if state_url is None:
        left_out.add(State)
    middleware = session_middleware(
        results_from_url(results_url) if results_url else None,
        state_from_url(state_url) if state_url else None,
        _limits_from_url(results_url) if results_url else None,
    )
    return RabbitmqBroker(url=url, middleware=[item for item in middleware if type(item) not in left_out])


def _limits_from_url(url: str) -> RateLimiterBackend | None:
    scheme = _scheme(url)
    if scheme == "memcached":
        from .rate_limits.backends.memcached import MemcachedBackend

        return MemcachedBackend(url=url)
    if scheme in ("redis", "rediss", "unix"):
        from .rate_limits.backends.redis import RedisBackend

        return RedisBackend(url=url)
    return None


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator:
        shown = f"***@{url.rpartition('@')[2]}" if "@" in url else url  # what is before may be a password
        raise ValueError(f"{shown!r} is no URL: it should look like redis://localhost:6379/0 or stub://.")
    return scheme
