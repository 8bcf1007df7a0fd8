"""The parts of cards that need no kernel: words, values, tracebacks, counts, stylesheet, escaping."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

import pytest

import nbqueue
from nbqueue import group, pipeline
from nbqueue.broker import Broker, from_url
from nbqueue.message import Message
from nbqueue.notebook import markup, stylesheet
from nbqueue.notebook.cards import trace
from nbqueue.notebook.cards.message import OUTPUT_HEAD, OUTPUT_TAIL, MessageCard, shortened
from nbqueue.notebook.cards.tally import Pace, Tally, parts_of
from nbqueue.notebook.cards.value import SHOWN, SHOWN_LINES, pretty
from nbqueue.notebook.cards.words import duration, ordinal, roughly


@pytest.fixture
def broker() -> Iterator[Broker]:
    before = nbqueue.broker.global_broker
    broker = nbqueue.broker.global_broker = from_url("stub://", profile=True)
    broker.declare_queue("default")
    yield broker
    nbqueue.broker.global_broker = before


def sent(broker: Broker, number: int) -> list[Message[int]]:
    return [Message[int]("default", "work", (n,), {}, {}).sent_by(broker) for n in range(number)]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "< 1 ms"),
        (0.0021, "2 ms"),
        (0.9996, "1.0 s"),
        (1.84, "1.8 s"),
        (9.96, "10 s"),
        (65, "1 min 5 s"),
        (3600, "1 h"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_guesses_have_one_or_two_digits() -> None:
    assert [roughly(seconds) for seconds in (0.3, 7.4, 23, 130, 5000)] == [
        "1 s",
        "7 s",
        "25 s",
        "2 min",
        "1 h 20 min",
    ]
    assert [ordinal(number) for number in (1, 3, 11, 21, 112)] == ["first", "third", "11th", "21st", "112th"]


def test_values_are_shown_whole_or_cut_with_what_is_missing() -> None:
    assert pretty({"b": 1, "a": [1, 2]}) == ("{'b': 1, 'a': [1, 2]}", "")
    shown, more = pretty("x" * 10_000)
    assert len(shown) == SHOWN
    assert more == "… 8 kB more, _.get_result() has all"
    shown, more = pretty(list(range(1_000_000)))
    assert shown.count("\n") == SHOWN_LINES - 1
    assert more.startswith("… more than ")


def failing(depth: int) -> int:
    return 1 // 0 if not depth else failing(depth - 1)


def test_a_traceback_shows_the_users_frames_with_their_source() -> None:
    try:
        re.sub("a", lambda _: str(failing(0)), "a")
    except ZeroDivisionError:
        text = traceback.format_exc()
    drawn = trace.drawn(text, None)
    assert (drawn.nbqueue, drawn.libraries) == (0, 1)
    assert drawn.told.endswith("of your frames; 1 of libraries hidden")
    assert "<mark>" in drawn.body
    assert "in failing" in drawn.body
    assert drawn.body.endswith("ZeroDivisionError: integer division or modulo by zero")
    assert "^^^" not in drawn.body


def test_deep_recursion_is_cut_in_the_middle() -> None:
    frames = "".join(f'  File "deep.py", line {n}, in f{n}\n    f()\n' for n in range(50))
    drawn = trace.drawn(f"Traceback (most recent call last):\n{frames}RecursionError: too deep\n", None)
    assert drawn.frames == 50
    assert drawn.body.count("nbq-where") == trace.FRAMES_SHOWN + 1
    assert "… 42 more …" in drawn.body


def test_source_of_another_machine_is_not_made_up_from_files_of_the_same_name_here() -> None:
    frame = f'  File "{__file__}", line 1, in work\n    something_else()\n'
    text = f"Traceback (most recent call last):\n{frame}E: no\n"
    drawn = trace.drawn(text, None)
    assert "something_else()" in drawn.body
    assert "The parts of cards" not in drawn.body


def test_what_no_traceback_parser_expects_stays_text() -> None:
    drawn = trace.drawn("  + Exception Group Traceback\n  | <b>E</b>\n", None)
    assert "&lt;b&gt;E&lt;/b&gt;" in drawn.body


def test_a_tally_counts_each_message_once(broker: Broker) -> None:
    messages = sent(broker, 1200)
    tally = Tally(broker, list(messages))
    results, states = broker.get_results_backend(), broker.get_state().backend
    tally.look(1)
    assert (tally.counts["pending"], tally.final) == (1200, False)
    for message in messages[100:1000]:
        results.store_result(message, 1, 60_000)
        states.update([{"message_id": message.message_id, "state": "done", "started": 1000, "ended": 1500}])
    states.update([{"message_id": messages[0].message_id, "state": "running"}])
    states.update(
        [
            {"message_id": messages[n].message_id, "state": "failed", "retries": 2, "error": "E: no"}
            for n in (1, 2)
        ]
    )
    assert tally.look(1)
    assert (tally.finished, tally.counts["running"], tally.counts["pending"]) == (902, 1, 297)
    assert tally.times() == (0.5, 0.5)
    assert tally.failures == {"E: no": [2, "work(1)"]}
    assert tally.retries == 2
    assert not tally.look(1)
    for message in messages:
        results.store_result(message, 1, 60_000)
    tally.look(1)
    states.update([{"message_id": messages[0].message_id, "state": "done"}])
    tally.look(1)
    assert tally.final
    assert tally.finished == 1200


def test_a_tally_has_time_for_one_chunk_at_least_and_says_that_it_is_behind(broker: Broker) -> None:
    messages = sent(broker, 2000)
    tally = Tally(broker, list(messages))
    for message in messages:
        broker.get_results_backend().store_result(message, 1, 60_000)
    looks = 0
    while not tally.final:
        tally.look(0)
        assert tally.final or tally.behind
        looks += 1
    assert looks == 4


def test_a_pipeline_counts_as_one(broker: Broker) -> None:
    first, second, alone = sent(broker, 3)
    parts = parts_of(group([pipeline([first, second]), group([alone])]))
    assert [type(part) for part in parts] == [list, Message]
    tally = Tally(broker, parts)
    states = broker.get_state().backend
    states.update([{"message_id": first.message_id, "state": "done"}])
    tally.look(1)
    assert (tally.total, tally.finished) == (2, 0)
    states.update([{"message_id": second.message_id, "state": "cancelled"}])
    tally.look(1)
    assert (tally.counts["cancelled"], tally.counts["pending"]) == (1, 1)


def test_what_a_killed_worker_had_not_told_is_known_by_the_results(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its states are behind its results; nobody writes the rest once it is gone."""
    broker = from_url(redis_url, profile=True)
    messages = sent(broker, 3)
    states, results = broker.get_state().backend, broker.get_results_backend()
    states.update([{"message_id": messages[0].message_id, "state": "running"}])
    states.update([{"message_id": messages[1].message_id, "state": "pending"}])
    states.update([{"message_id": messages[2].message_id, "state": "running"}])
    states.flush()
    results.store_result(messages[0], 1, 60_000)
    results.store_exception(messages[1], ValueError("no"), 60_000)
    tally, card = Tally(broker, list(messages)), MessageCard(messages[0])
    records = states.get_many([messages[0].message_id])
    tally.look(1)
    card.look(records)
    assert (tally.finished, card.state) == (0, "running")

    monkeypatch.setattr("nbqueue.notebook.cards.tally.QUIET", -1)
    monkeypatch.setattr("nbqueue.notebook.cards.message.QUIET", -1)
    monkeypatch.setattr("nbqueue.notebook.cards.message.RECORD_LAG", -1)
    assert tally.look(1)
    assert (tally.counts["done"], tally.counts["failed"], tally.counts["running"]) == (1, 1, 1)
    assert tally.failures == {"ValueError: no": [1, "work(1)"]}
    assert not tally.final
    assert card.look(records)
    assert (card.state, card.final) == ("done", True)
    results.store_result(messages[2], 1, 60_000)
    tally.look(1)
    assert tally.final
    broker.close()


def test_the_time_left_is_told_after_some_have_finished_and_does_not_jitter() -> None:
    pace = Pace(0.0)
    pace.note(0.5, 2)
    assert pace.left(98) is None
    for tenth in range(6, 31):
        pace.note(tenth / 10, 4 * tenth)
    left = pace.left(80)
    assert left is not None
    assert 1.9 < left < 2.1
    pace.note(3.1, 123)
    again = pace.left(77)
    assert again is not None
    assert again <= left


def test_long_output_keeps_its_beginning_and_its_end() -> None:
    pieces = [("stdout", f"line {number}\n") for number in range(2000)]
    size = sum(len(text) for _, text in pieces)
    text = "".join(text for _, text in shortened(pieces, size))
    note = f"\n… {size - OUTPUT_HEAD - OUTPUT_TAIL:,} characters more: message.output has them …\n"
    assert text.count(note) == 1
    assert len(text) == OUTPUT_HEAD + OUTPUT_TAIL + len(note)
    assert text.startswith("line 0\n")
    assert text.endswith("line 1999\n")
    assert shortened(pieces[:10], 80) == pieces[:10]


def test_output_is_what_a_terminal_would_show() -> None:
    assert markup.plain_output("\x1b[31mred\x1b[0m \x1b]0;title\x07ok") == "red ok"
    assert markup.plain_output("1 %\r50 %\r100 %\nnext\r\n") == "100 %\nnext\n"


def test_what_comes_from_outside_is_escaped_and_visible() -> None:
    assert markup.escape("<a b=\"c\" d='e'>&\u202e\x00\ud800") == (
        "&lt;a b=&quot;c&quot; d=&#x27;e&#x27;&gt;&amp;\\u202e\\u0000\\ud800"
    )
    assert markup.element("p", "<b>", class_="x", title=None) == '<p class="x">&lt;b&gt;</p>'


def test_the_stylesheet_of_a_card_holds_what_it_needs_and_no_more() -> None:
    card = '<div class="nbq-card" data-nbqueue-state="running"><span class="nbq-chip"></span></div>'
    style = stylesheet.style_for(card)
    assert style.count("{") == style.count("}")
    assert ".nbq-card{" in style
    assert "@keyframes" in style
    for absent in (".nbq-bar", "table", "--nbq-bad", '"failed"', "/*"):
        assert absent not in style
    without = stylesheet.style_for(card.replace("running", "done"))
    assert "@keyframes" not in without
    assert len(without) < len(stylesheet.full()) / 3


def test_every_variable_that_a_stylesheet_uses_is_defined_in_it() -> None:
    style = stylesheet.style_for(stylesheet_of_everything())
    assert set(re.findall(r"var\((--nbq-[\w-]+)", style)) <= set(re.findall(r"(--nbq-[\w-]+):", style))


def stylesheet_of_everything() -> str:
    names = " ".join(re.findall(r"\.(nbq-[\w-]+)", stylesheet.full()))
    states = "".join(
        f'<i data-nbqueue-state="{state}">' for state in ("done", "failed", "running", "retrying")
    )
    return f'<pre class="{names}"><code><details><summary><table><td><button><svg>{states}'
