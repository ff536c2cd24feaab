"""Labels of many requests are written together, and each request gets its own answer."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from serving.errors import DeadlineExceeded, FeedbackUnavailable, Overloaded
from serving.feedback import writer as recorders
from serving.feedback.labels import Label
from serving.feedback.writer import Recorder
from tests.serving.feedback.test_database import of


class Slow:
    """A database that writes when it is told to."""

    def __init__(self) -> None:
        self.go_on, self.written, self.away = threading.Event(), list[list[str]](), False
        self.fails = False

    def record(self, labels: Sequence[Label]) -> list[str | None]:
        assert self.go_on.wait(30)
        if self.fails:
            raise FeedbackUnavailable("away")
        self.written.append([each.id for each in labels])
        return [None if each.label == "7" else "7" for each in labels]


def soon() -> float:
    return time.monotonic() + 30


def recorder(store: Any) -> Recorder:
    return Recorder(lambda: store)


def test_what_waits_is_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "TOGETHER", 3)
    store = Slow()

    async def several() -> list[Any]:
        by = recorder(store)
        waiting = [
            asyncio.create_task(by.record([of(key) for key in keys], soon()))
            for keys in ("a", "bc", "d", "efgh", "i")
        ]
        waiting.append(asyncio.create_task(by.record([of("j", "1")], soon())))
        await asyncio.sleep(0)
        store.go_on.set()
        return [await each for each in waiting]

    assert asyncio.run(several()) == [[None], [None] * 2, [None], [None] * 4, [None], ["7"]]
    assert store.written == [["a"], ["b", "c", "d"], ["e", "f", "g", "h"], ["i", "j"]]


def test_what_fails_fails_for_all_that_share_it_and_the_next_goes_on() -> None:
    store = Slow()
    store.fails = True
    store.go_on.set()

    async def several() -> None:
        by = recorder(store)
        with pytest.raises(FeedbackUnavailable):
            await by.record([of("a")], soon())
        store.fails = False
        assert await by.record([of("b")], soon()) == [None]
        store.away = True
        with pytest.raises(FeedbackUnavailable):
            await by.record([of("c")], soon())
        assert await by.record([], soon()) == []

    asyncio.run(several())
    assert store.written == [["b"]]


def test_behind_a_transaction_that_hangs_no_label_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Slow()

    async def several() -> None:
        by = recorder(store)
        first = asyncio.create_task(by.record([of("a")], soon()))
        await asyncio.sleep(0)
        monkeypatch.setattr(recorders, "STUCK", -1.0)
        with pytest.raises(FeedbackUnavailable):
            await by.record([of("b")], soon())
        store.go_on.set()
        assert await first == [None]

    asyncio.run(several())


def test_too_many_are_refused_and_who_is_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "WAITING", 2)
    store = Slow()

    async def several() -> None:
        by = recorder(store)
        first = asyncio.create_task(by.record([of("a")], soon()))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(by.record([of("b"), of("c")], time.monotonic() + 0.05))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await by.record([of("d")], soon())
        with pytest.raises(DeadlineExceeded, match="Send them again"):
            await waiting
        store.go_on.set()
        assert await first == [None]
        assert await by.record([of("e")], soon()) == [None]

    asyncio.run(several())
    assert store.written == [["a"], ["b", "c"], ["e"]]
