"""`%nbqueue use amqp://... --results ...`: the same actors on RabbitMQ, with results beside it."""

from __future__ import annotations

import pytest

from .conftest import Notebook


def test_the_same_actors_run_on_rabbitmq_with_results_in_redis(
    loaded: Notebook, rabbitmq_url: str, redis_url: str
) -> None:
    assert loaded.run("add.send(1, 2).get_result()").result == "3"
    shown = loaded.run(f"%nbqueue use {rabbitmq_url} --results {redis_url} --state stub://")
    assert shown.error == shown.stderr == ""
    assert shown.stdout.startswith("Using amqp://127.0.0.1:")
    assert "(RabbitMQ " in shown.stdout
    assert "guest" not in shown.stdout
    loaded.run("message = add.send(3, 4)")
    assert "default  1 waiting" in loaded.run("%nbqueue").stdout
    assert loaded.run("%nbqueue workers 2").stdout == "2 threads.\n"
    assert loaded.run("message.get_result()").result == "7"
    assert loaded.run("sum(add.starmap([(n, n) for n in range(50)]).get_results())").result == "2450"
    assert "51 done" in loaded.run("%nbqueue").stdout


def test_the_same_actors_run_on_rabbitmq_with_results_in_memcached(
    loaded: Notebook, rabbitmq_url: str, memcached_url: str
) -> None:
    shown = loaded.run(f"%nbqueue use {rabbitmq_url} --results {memcached_url}")
    assert shown.error == shown.stderr == ""
    loaded.run("%nbqueue workers 2")
    assert loaded.run("add.send(3, 4).get_result()").result == "7"
    status = loaded.run("%nbqueue")
    assert status.error == ""
    assert "\N{EN DASH} done" in status.stdout  # nobody keeps states


def test_without_a_place_for_results_asking_for_one_says_what_to_do(
    loaded: Notebook, rabbitmq_url: str
) -> None:
    loaded.run(f"%nbqueue use {rabbitmq_url}")
    loaded.run("%nbqueue workers 1")
    assert "keeps no results" in loaded.run("add.send(3, 4).get_result()").error


@pytest.mark.parametrize("vhost", ["nowhere"])
def test_a_virtual_host_that_is_not_there_changes_nothing(
    loaded: Notebook, rabbitmq_url: str, vhost: str
) -> None:
    shown = loaded.run(f"%nbqueue use {rabbitmq_url.rpartition('/')[0]}/{vhost}")
    assert shown.error == ""
    assert "has no virtual host 'nowhere'" in shown.stdout
    assert shown.stdout.count("\n") == 1
    assert loaded.run("add.send(1, 2).get_result()").result == "3"
