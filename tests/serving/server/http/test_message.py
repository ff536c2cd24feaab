"""What the header of a request says, and the bytes of a response."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import pytest

from serving.errors import BadRequest, BodyTooSlow, RequestTooLarge, ServingError, Unimplemented
from serving.server.http.message import Request, encoded
from tests.serving.server.http.engine import Answer


def request(
    *fields: tuple[bytes, bytes], target: bytes = b"/", method: bytes = b"GET", version: str = "1.1"
) -> Request:
    made = Request(lambda _: None)
    made.target = target
    made.read_header(method, version, fields or [(b"Host", b"h")])
    return made


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a?b=%20?c", "/a", "b=%20?c"),
        (b"/%C3%A9%2F", "/é/", ""),
        (b"/%FF", "/\ufffd", ""),
        (b"/a%3Fb", "/a?b", ""),
        (b"http://a:1/b?c", "/b", "c"),
        (b"HTTPS+x.-1://a?c", "/", "c"),
        (b"http://a", "/", ""),
        (b"/http://a", "/http://a", ""),
    ],
)
def test_path_and_query_are_those_of_the_target(target: bytes, path: str, query: str) -> None:
    made = request(target=target)
    assert (made.path, made.query) == (path, query)


@pytest.mark.parametrize(
    ("method", "target", "accepted"),
    [
        *((b"OPTIONS", b"*", True), (b"GET", b"*", False), (b"OPTIONS", b"**", False)),
        *((b"CONNECT", b"a:1", True), (b"CONNECT", b"[::1]:1", True), (b"GET", b"a:1", False)),
        *((b"CONNECT", b"a", False), (b"CONNECT", b"/", False), (b"CONNECT", b"u@a:1", False)),
        *((b"GET", b"/#a", False), (b"GET", b"http://a/#a", False), (b"GET", b"a", False)),
        *((b"GET", b"http://", False), (b"GET", b"http:///a", False), (b"GET", b"", False)),
        *((b"GET", b"http://u@a/", False), (b"GET", b"http://][/", False)),
    ],
)
def test_the_form_of_a_target_is_that_of_its_method(
    method: bytes, target: bytes, accepted: bool
) -> None:
    if accepted:
        assert request(target=target, method=method).target == target
    else:
        with pytest.raises(BadRequest, match=r"^The target is malformed\. Expected a path"):
            request(target=target, method=method)


def test_the_host_of_an_absolute_target_replaces_the_host_field() -> None:
    assert request(target=b"http://a:1/b").headers == {"host": "a:1"}
    with pytest.raises(BadRequest, match="Host"):
        request((b"Host", b"a b"), target=b"http://a/")


def test_a_header_is_read() -> None:
    before = time.monotonic()
    fields = (b"Host", b"h \t "), (b"A", b"\xe9\t"), (b"a", b"2 3 "), (b"B", b"")
    made = request(*fields, method=b"PUT")
    assert made.headers == {"host": "h", "a": "\xe9, 2 3", "b": ""}
    assert (made.method, made.version) == ("PUT", "1.1")
    assert before <= made.received_at <= time.monotonic()


@pytest.mark.parametrize(
    "host",
    [b"", b"h", b"h:80", b"h:", b"[::1]:80", b"[::ffff:1.2.3.4]", b"1.2.3.4:1", b"a.b-c_d~e%20"],
)
def test_a_host_is_accepted(host: bytes) -> None:
    assert request((b"Host", host)).method


@pytest.mark.parametrize(
    "host",
    [
        *(b"a/b", b"a b", b"a@b", b"a,b", b"a\\b", b"a?b", b"a#b", b"][:::[", b"[::1", b"::1"),
        *(b"[:::]", b"[a]", b"[]", b"[::1]a", b"[::1%25lo]", b"a:b", b"a:1:2", b"a:123456", b"a%"),
        *(b"a[b]", b"a%2", b"a%xx", b"\xe9"),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_malformed_host_is_refused(host: bytes, version: str) -> None:
    with pytest.raises(BadRequest, match=r"^The Host field is missing, repeated or malformed"):
        request((b"Host", host), version=version)


def test_only_http_1_1_requires_a_host() -> None:
    with pytest.raises(BadRequest, match="Host"):
        request((b"A", b"b"))
    with pytest.raises(BadRequest, match="Host"):
        request((b"Host", b"a"), (b"Host", b"a"))
    assert request((b"A", b"b"), version="1.0").method


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0"])
def test_other_versions_are_refused(version: str) -> None:
    made = Request(lambda _: None)
    with pytest.raises(BadRequest, match=f"^HTTP/{version} is not supported"):
        made.read_header(b"GET", version, [(b"Host", b"h")])
    assert made.method == ""  # so the parser knows that it was never ready


@pytest.mark.parametrize(
    ("coding", "error"),
    [
        *((b"gzip", BadRequest), (b"identity", BadRequest), (b"chunked, gzip", BadRequest)),
        *((b"chunked, chunked", BadRequest), (b"", BadRequest), (b", chunked", BadRequest)),
        *((b"chunked;a=b", BadRequest), (b"gzip, chunked", Unimplemented)),
    ],
)
def test_other_transfer_codings_than_chunked_are_refused(
    coding: bytes, error: type[ServingError]
) -> None:
    assert request((b"Host", b"h"), (b"Transfer-Encoding", b"Chunked\t ")).method
    with pytest.raises(error, match=r"^Transfer-Encoding must be|^The transfer coding 'gzip' is"):
        request((b"Host", b"h"), (b"Transfer-Encoding", coding))


@pytest.mark.parametrize(
    ("version", "options", "keep_alive"),
    [
        *(("1.1", None, True), ("1.1", b"a", True), ("1.1", b"keep-alive", True)),
        *(("1.1", b"close", False), ("1.1", b"keep-alive,\tClose , a", False)),
        *(("1.1", b"closed, xclose", True), ("1.0", None, False), ("1.0", b"a", False)),
        *(("1.0", b"Keep-Alive", True), ("1.0", b"keep-alive, close", False)),
    ],
)
def test_close_comes_before_keep_alive(
    version: str, options: bytes | None, keep_alive: bool
) -> None:
    field = [(b"Connection", options)] if options is not None else []
    assert request((b"Host", b"h"), *field, version=version).keep_alive is keep_alive


def test_http_1_0_has_no_transfer_coding() -> None:
    """A proxy that speaks HTTP/1.0 would read the chunks as the next request."""
    with pytest.raises(BadRequest, match=r"^Transfer-Encoding must be"):
        request((b"Transfer-Encoding", b"chunked"), version="1.0")


@pytest.mark.parametrize(
    ("value", "version", "expects"),
    [
        (b"100-Continue", "1.1", True),
        (b"100-continue", "1.0", False),
        (b"", "1.1", False),
        (b"200", "1.1", False),
    ],
)
def test_only_http_1_1_expects_100_continue(value: bytes, version: str, expects: bool) -> None:
    made = request((b"Host", b"h"), (b"Expect", value), version=version)
    assert made.expects_continue is expects
    assert made.discard() is not expects


# the body


def test_a_body_is_read_in_parts_and_its_reader_is_woken() -> None:
    waits: list[bool] = []

    async def read() -> list[bytes]:
        made = Request(lambda request: waits.append(request is made))
        reading = asyncio.ensure_future(made.chunk())
        states = [made.reader_waits]
        await asyncio.sleep(0)
        states.append(made.reader_waits)
        made.feed(b"a")
        assert [*states, made.reader_waits] == [False, True, False]
        parts = [await reading]
        for part in (b"b", b"c", b"d"):
            made.feed(part)
        assert made.buffered == 3
        parts.append(await made.chunk())
        assert made.buffered == 0
        reading = asyncio.ensure_future(made.chunk())
        await asyncio.sleep(0)
        made.end()
        return [*parts, await reading, await made.chunk()]

    assert asyncio.run(read()) == [b"a", b"bcd", b"", b""]
    assert waits == [True, True]


def test_what_arrived_before_an_error_is_read_first() -> None:
    async def read() -> None:
        made = Request(lambda _: None)
        made.feed(b"a")
        made.fail(BadRequest("malformed"))
        assert await made.chunk() == b"a"
        with pytest.raises(BadRequest, match="malformed"):
            await made.chunk()

    asyncio.run(read())


def test_an_error_wakes_the_reader() -> None:
    async def read() -> None:
        made = Request(lambda _: None)
        reading = asyncio.ensure_future(made.chunk())
        await asyncio.sleep(0)
        made.fail(BadRequest("malformed"))
        with pytest.raises(BadRequest):
            await reading
        assert not made.keep_alive
        assert not made.discard()

    asyncio.run(read())


def test_a_discarded_body_is_counted_and_not_held() -> None:
    made = request()
    made.feed(b"abc")
    assert made.discard()
    assert made.buffered == 0
    made.feed(b"de")
    assert (made.buffered, made._body) == (2, b"")


class Counter:
    """What counts a body that is arriving: the sizes of its parts, and its end."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.open = False

    @contextmanager
    def __call__(self) -> Iterator[Callable[[int], None]]:
        self.open = True
        try:
            yield self.sizes.append
        finally:
            self.open = False


async def read_in_parts(counter: Counter, *parts: bytes, limit: int, seconds: float = 60) -> bytes:
    """Read a body whose parts arrive one by one, then its end unless the last part is empty."""
    made = request()
    reading = asyncio.ensure_future(made.read(limit, counter, time.monotonic() + seconds))
    for part in parts:
        await asyncio.sleep(0)
        made.feed(part)
    await asyncio.sleep(0)
    assert counter.open is not reading.done()
    if parts[-1:] != (b"",):
        made.end()
    return await reading


def test_an_arriving_body_is_counted_part_by_part_and_joined() -> None:
    counter = Counter()
    assert asyncio.run(read_in_parts(counter, b"ab", b"c", b"def", limit=6)) == b"abcdef"
    assert (counter.sizes, counter.open) == ([2, 1, 3], False)


def test_a_body_over_the_limit_is_refused_as_soon_as_it_is_too_long() -> None:
    counter = Counter()
    with pytest.raises(RequestTooLarge, match=r"^The body has more than 3 bytes\.$"):
        asyncio.run(read_in_parts(counter, b"ab", b"cd", b"", limit=3))
    assert counter.sizes == [2]


@pytest.mark.parametrize("parts", [(b"",), (b"ab", b"")], ids=["no byte", "a part"])
def test_a_body_that_is_not_complete_by_its_deadline_is_too_slow(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(BodyTooSlow, match=r"^The body did not arrive in time\.$") as caught:
        asyncio.run(read_in_parts(Counter(), *parts, limit=3, seconds=0.05))
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_complete_body_is_returned_and_counts_as_none_that_is_arriving(body: bytes) -> None:
    counter, made = Counter(), request()
    made.feed(body)
    made.end()
    assert asyncio.run(made.read(3, counter, 0.0)) == body  # in time, whatever the deadline
    assert (counter.open, counter.sizes, made.buffered) == (False, [], 0)


def test_a_complete_body_over_the_limit_is_refused() -> None:
    made = request()
    made.feed(b"abcd")
    made.end()
    with pytest.raises(RequestTooLarge, match="more than 3 bytes"):
        asyncio.run(made.read(3, Counter(), time.monotonic() + 60))


@pytest.mark.parametrize(("length", "accepted"), [(b"3", True), (b"04", False), (b"99", False)])
def test_a_stated_length_over_the_limit_is_refused_before_the_body_arrives(
    length: bytes, accepted: bool
) -> None:
    made = request((b"Host", b"h"), (b"Content-Length", length))
    if accepted:
        made.feed(b"abc")
        made.end()
        assert asyncio.run(made.read(3, Counter(), 0.0)) == b"abc"
    else:
        message = rf"^The body has {int(length)} bytes\. Expected at most 3\.$"
        with pytest.raises(RequestTooLarge, match=message):
            asyncio.run(made.read(3, Counter(), 0.0))


# responses


def lines(response: bytes) -> list[bytes]:
    """Return the lines of a header without its date, and the body."""
    *head, date, kind = response.partition(b"\r\n\r\n")[0].split(b"\r\n")[:3]
    assert date.startswith(b"Date: ")
    rest = response.split(b"\r\n")[3:]
    return [*head, kind, *rest]


def test_a_response_is_encoded() -> None:
    answer = Answer(404, b"none", "a/b", {"X": "\xe9", "Y": "z"})
    assert lines(encoded(answer, request(), keep_alive=True)) == [
        *(b"HTTP/1.1 404 Not Found", b"Content-Type: a/b", b"Content-Length: 4"),
        *(b"X: \xe9", b"Y: z", b"", b"none"),
    ]


def test_the_date_of_a_response_is_that_of_its_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for now in (0.0, 0.9, 1.0):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        date = b"Date: Thu, 01 Jan 1970 00:00:0%d GMT\r\n" % now
        assert date in encoded(Answer(200), request(), keep_alive=True)


def test_a_response_names_its_date() -> None:
    response = encoded(Answer(200), request(), keep_alive=True).decode()
    sent = parsedate_to_datetime(response.partition("Date: ")[2].partition("\r\n")[0])
    assert abs(sent.timestamp() - time.time()) < 60
    assert response.partition("Date: ")[2].partition("\r\n")[0].endswith(" GMT")


@pytest.mark.parametrize(
    ("version", "keep_alive", "field"),
    [
        ("1.1", True, []),
        ("1.1", False, [b"Connection: close"]),
        ("1.0", True, [b"Connection: keep-alive"]),
        ("1.0", False, [b"Connection: close"]),
    ],
)
def test_a_response_says_if_the_connection_persists(
    version: str, keep_alive: bool, field: list[bytes]
) -> None:
    response = encoded(Answer(200), request(version=version), keep_alive=keep_alive)
    assert lines(response)[2:] == [b"Content-Length: 0", *field, b"", b""]


def test_the_answer_to_head_has_a_length_and_no_body() -> None:
    head = request(method=b"HEAD")
    assert lines(encoded(Answer(200, b"abc"), head, keep_alive=True))[2:] == [
        *(b"Content-Length: 3", b"", b"")
    ]
    given = Answer(200, headers={"Content-Length": "9"})
    assert lines(encoded(given, head, keep_alive=True))[2:] == [b"Content-Length: 9", b"", b""]
