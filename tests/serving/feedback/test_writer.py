"""Labels of many requests share a transaction, and each request gets its own result."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from serving.errors import DeadlineExceeded, FeedbackUnavailable, Overloaded
from serving.feedback import writer as module
from serving.feedback.labels import Label
from serving.feedback.writer import Writer
from tests.serving.feedback.test_database import of


class Slow:
    """A database that writes when ``resume`` is set."""

    def __init__(self) -> None:
        self.resume, self.written, self.unreachable = threading.Event(), list[list[str]](), False
        self.fails = False

    def write(self, labels: Sequence[Label]) -> list[str | None]:
        assert self.resume.wait(30)
        if self.fails:
            raise FeedbackUnavailable("unreachable")
        self.written.append([each.id for each in labels])
        return [None if each.label == "7" else "7" for each in labels]


def soon() -> float:
    return time.monotonic() + 30


def writer(database: Any) -> Writer:
    return Writer(database)


def test_waiting_labels_share_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 3)
    database = Slow()

    async def several() -> list[Any]:
        by = writer(database)
        waiting = [
            asyncio.create_task(by.write([of(key) for key in keys], soon()))
            for keys in ("a", "bc", "d", "efgh", "i")
        ]
        waiting.append(asyncio.create_task(by.write([of("j", "1")], soon())))
        await asyncio.sleep(0)
        database.resume.set()
        return [await each for each in waiting]

    assert asyncio.run(several()) == [[None], [None] * 2, [None], [None] * 4, [None], ["7"]]
    assert database.written == [["a"], ["b", "c", "d"], ["e", "f", "g", "h"], ["i", "j"]]


def test_a_failed_transaction_fails_its_requests_and_the_next_one_continues() -> None:
    database = Slow()
    database.fails = True
    database.resume.set()

    async def several() -> None:
        by = writer(database)
        with pytest.raises(FeedbackUnavailable):
            await by.write([of("a")], soon())
        database.fails = False
        assert await by.write([of("b")], soon()) == [None]
        database.unreachable = True
        with pytest.raises(FeedbackUnavailable):
            await by.write([of("c")], soon())
        assert await by.write([], soon()) == []

    asyncio.run(several())
    assert database.written == [["b"]]


def test_no_label_queues_behind_a_transaction_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Slow()

    async def several() -> None:
        by = writer(database)
        first = asyncio.create_task(by.write([of("a")], soon()))
        await asyncio.sleep(0)
        monkeypatch.setattr(module, "STUCK", -1.0)
        with pytest.raises(FeedbackUnavailable):
            await by.write([of("b")], soon())
        database.resume.set()
        assert await first == [None]

    asyncio.run(several())


def test_too_many_labels_are_refused_and_late_ones_get_a_deadline_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUEUED", 2)
    database = Slow()

    async def several() -> None:
        by = writer(database)
        first = asyncio.create_task(by.write([of("a")], soon()))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(by.write([of("b"), of("c")], time.monotonic() + 0.05))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await by.write([of("d")], soon())
        with pytest.raises(DeadlineExceeded, match="Send them again"):
            await waiting
        database.resume.set()
        assert await first == [None]
        assert await by.write([of("e")], soon()) == [None]

    asyncio.run(several())
    assert database.written == [["a"], ["b", "c"], ["e"]]
