"""What a server must do with which bytes: cases of framing, written from RFC 9110 and RFC 9112.

Knows no server. Where an RFC leaves a choice, a case states that of the engine's README.
"""

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

TOKEN = f"!#$%&'*+-.^_`|~{string.digits}{string.ascii_letters}"  # RFC 9110, 5.6.2
SEPARATORS = '"(),/:;<=>?@[\\]{}'
CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\t\r\n"] + ["\x7f"]
KNOWN = ("DELETE", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")  # beside GET, HEAD and CONNECT

OPEN, CLOSED = True, False


@dataclass(frozen=True)
class Case:
    """Bytes on a new connection, the answers to them, and the state of the connection."""

    clause: str
    about: str
    sent: bytes
    answers: tuple[str, ...]  # "200 <method> <target> <body>", or the status of a refusal
    open: bool  # another request is answered
    eof: bool = False  # the client half-closes then


def case(clause: str, about: str, sent: str, *answers: str, open: bool = OPEN) -> Case:  # noqa: A002
    """Return a case; ``sent`` is in Latin-1."""
    return Case(clause, about, sent.encode("latin-1"), answers, open)


def refused(clause: str, about: str, sent: str, status: str = "400") -> Case:
    """Return a case whose only request is refused."""
    return case(clause, about, sent, status, open=CLOSED)


def get(fields: str = "", *, line: str = "GET / HTTP/1.1", host: str = "Host: h\r\n") -> str:
    """Return a request without a body."""
    return f"{line}\r\n{host}{fields}\r\n"


def post(fields: str, body: str) -> str:
    """Return a request with a body."""
    return f"POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}"


def chunked(chunks: str, fields: str = "") -> str:
    """Return a request with a chunked body."""
    return post(f"Transfer-Encoding: chunked\r\n{fields}", chunks)


def _lines() -> Iterator[Case]:
    rule = "9112, 2.2"
    for count in (1, 2, 9):
        yield case(rule, f"{count} empty lines first", "\r\n" * count + get(), "200 GET / ")
    yield refused(rule, "LF ends the request line", "GET / HTTP/1.1\nHost: h\r\n\r\n")
    yield refused(rule, "LF ends a field", "GET / HTTP/1.1\r\nHost: h\n\r\n")
    yield refused(rule, "LF ends the header", "GET / HTTP/1.1\r\nHost: h\r\n\n")
    yield refused(rule, "CR within the request line", "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n")
    yield refused(rule, "CR within a field value", get("A: b\rc\r\n"))
    yield refused(rule, "CR CR LF ends a field", get("A: b\r\r\n"))
    for space in (" ", "\t"):
        yield refused(rule, f"{space!r} before the first field", get(host=f"{space}Host: h\r\n"))
        yield refused(rule, f"{space!r} before the request line", space + get())


def _versions() -> Iterator[Case]:
    rule = "9112, 2.3"
    yield case(rule, "HTTP/1.1", get(), "200 GET / ")
    yield case(rule, "HTTP/1.0", get(line="GET / HTTP/1.0"), "200 GET / ", open=CLOSED)
    for name in (
        *("HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2", "HTTP/3.0", "HTTP/9.9", "HTTP"),
        *("http/1.1", "Http/1.1", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/11", "HTTP/1.1.1"),
        *("HTTP/1.10", "HTTP/01.1", "HTTP/1,1", "HTTP/-1.1", "HTTP/+1.1", "HTTP /1.1", "HTTP/ 1.1"),
        *("HTTP/1 .1", "XTTP/1.1", "HTTQ/1.1", "HTTPS/1.1", "ICE/1.0", "RTSP/1.0", "HTTP/1.1\t"),
        *("HTTP/1.1 ", "HTTP/1.1 x", "HTTP/1.1HTTP/1.1", "HTTP\\1.1", "HTTP/1.x", "HTTP/x.1", "\0"),
    ):
        yield refused(rule, f"version {name!r}", get(line=f"GET / {name}"))


def _request_lines() -> Iterator[Case]:
    rule = "9112, 3"
    for line in (
        *(
            "GET",
            "GET ",
            "GET /",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "POST / RTSP/1.0",
            "GET\t/ HTTP/1.1",
            "GET /\tHTTP/1.1",
        ),
        *("GET / a HTTP/1.1", "GET /a b HTTP/1.1", "GET\x0b/ HTTP/1.1", "GET /\x0cHTTP/1.1"),
        *("GET\xa0/ HTTP/1.1", "/ HTTP/1.1", "HTTP/1.1 200 OK", "GET\0 / HTTP/1.1"),
    ):
        known = "501" if line.startswith("HTTP") else "400"
        yield refused(rule, f"request line {line!r}", get(line=line), known)
    for name in KNOWN:
        answer = f"200 {name} / "
        yield case("9110, 9.1", f"method {name}", get(line=f"{name} / HTTP/1.1"), answer)
    yield case("9110, 9.3.2", "HEAD", get(line="HEAD / HTTP/1.1"), "200 HEAD / ")
    connect = get(line="CONNECT a:1 HTTP/1.1")
    yield case("9110, 9.3.6", "CONNECT", connect + get(), "200 CONNECT a:1 ", open=CLOSED)
    for name in (
        "FOO",
        "get",
        "Get",
        "GETT",
        "GE",
        "G",
        "PROPFIND",
        "SOURCE",
        "DESCRIBE",
        "M-SEARCH",
    ):
        yield refused("9110, 9.1", f"method {name}", get(line=f"{name} / HTTP/1.1"), "501")
    for sign in TOKEN:
        if sign not in string.ascii_uppercase:
            line = f"{sign} / HTTP/1.1"
            yield refused("9110, 9.1", f"method {sign!r}", get(line=line), "501")
    for sign in (*SEPARATORS, *CONTROLS, "\x80", "\xff"):
        for name in (f"{sign}GET", f"G{sign}T"):
            line = f"{name} / HTTP/1.1"
            yield refused("9112, 3.1", f"method {name!r}", get(line=line))


def _targets() -> Iterator[Case]:
    for target in ("/a", "/a/b?c=d&e", "/?", "/%20", "/a//b", "/;:@&=+$,-_.!~*'()", "//a"):
        sent = get(line=f"GET {target} HTTP/1.1")
        yield case("9112, 3.2.1", f"target {target}", sent, f"200 GET {target} ")
    for target, path in (
        *(("http://a/b", "/b"), ("http://a", "/"), ("http://a?b", "/?b"), ("HTTP://a:1/", "/")),
        ("http://[::1]:1/b", "/b"),
    ):
        sent = get(line=f"GET {target} HTTP/1.1")
        yield case("9112, 3.2.2", f"target {target}", sent, f"200 GET {path} ")
    for target in (
        "http://",
        "http:///a",
        "http://u@a/",
        "http://][/",
        "http:/a",
        "http:a",
        "://a/",
    ):
        line = f"GET {target} HTTP/1.1"
        yield refused("9110, 4.2", f"target {target}", get(line=line))
    for target in ("a:1", "a", "?a", "#", "/a#b", "http://a/#b", "\\a"):
        line = f"GET {target} HTTP/1.1"
        yield refused("9112, 3.2", f"target {target}", get(line=line))
    for target in ("/", "a", "*", "u@a:1"):
        line = f"CONNECT {target} HTTP/1.1"
        yield refused("9112, 3.2.3", f"CONNECT {target}", get(line=line))
    options = get(line="OPTIONS * HTTP/1.1")
    yield case("9112, 3.2.4", "OPTIONS *", options, "200 OPTIONS * ")
    for line in ("GET *", "POST *", "OPTIONS **", "OPTIONS *a"):
        yield refused("9112, 3.2.4", line, get(line=f"{line} HTTP/1.1"))
    yield refused("9112, 3.2.4", "HEAD *", get(line="HEAD * HTTP/1.1"))
    for sign in CONTROLS:
        line = f"GET /a{sign}b HTTP/1.1"
        yield refused("3986, 2", f"{sign!r} in a target", get(line=line))


def _hosts() -> Iterator[Case]:
    rule = "9112, 3.2"
    yield refused(rule, "no Host", get(host=""))
    yield refused(rule, "two Hosts", get("Host: h\r\n"))
    yield refused(rule, "two Hosts that differ", get("Host: g\r\n"))
    yield refused(
        rule, "no Host beside an absolute target", get(line="GET http://a/ HTTP/1.1", host="")
    )
    no_host = get(line="GET / HTTP/1.0", host="")
    yield case(rule, "no Host in HTTP/1.0", no_host, "200 GET / ", open=CLOSED)
    for host in (
        "",
        "a",
        "a:1",
        "a:",
        "1.2.3.4",
        "[::1]",
        "[::1]:1",
        "a.b-c_d~e",
        "%41",
        "!$&'()*+;=",
    ):
        yield case("3986, 3.2", f"Host {host!r}", get(host=f"Host: {host}\r\n"), "200 GET / ")
    for host in (
        *(
            "a b",
            "a,b",
            "u@a",
            "a/",
            "a\\",
            "a?",
            "a#",
            "a:b",
            "a:1:2",
            "a:-1",
            "::1",
            "[::1",
            "::1]",
        ),
        *(
            "[]",
            "[a]",
            "[:::]",
            "[::1]a",
            "][:::[",
            "a[b]",
            "%",
            "%4",
            "%zz",
            "a\tb",
            "\xe9",
            "a\x7f",
        ),
        *('"a"', "<a>", "{a}", "a|b", "a^b", "a`b"),
    ):
        yield refused("3986, 3.2", f"Host {host!r}", get(host=f"Host: {host}\r\n"))


def _fields() -> Iterator[Case]:
    rule = "9112, 5.1"
    for sign in TOKEN:
        yield case(rule, f"{sign!r} in a name", get(f"A{sign}: b\r\n"), "200 GET / ")
    for sign in (*SEPARATORS.replace(":", ""), *CONTROLS, " ", "\t", "\x80", "\xff"):
        yield refused(rule, f"{sign!r} in a name", get(f"A{sign}A: b\r\n"))
    for space in (" ", "\t", "  "):
        yield refused(rule, f"{space!r} before the colon", get(f"A{space}: b\r\n"))
        yield case(rule, f"{space!r} around a value", get(f"A:{space}b{space}\r\n"), "200 GET / ")
    yield refused(rule, "an empty name", get(": b\r\n"))
    yield refused(rule, "no colon", get("A\r\n"))
    yield case(rule, "an empty value", get("A:\r\n"), "200 GET / ")
    for space in (" ", "\t"):
        yield refused("9112, 5.2", f"a line folded with {space!r}", get(f"A: b\r\n{space}c\r\n"))
    for sign in CONTROLS:
        yield refused("9110, 5.5", f"{sign!r} in a value", get(f"A: b{sign}c\r\n"))
    for sign in ("\t", '"', ",", ":", "\x80", "\xe9", "\xff"):
        yield case("9110, 5.5", f"{sign!r} in a value", get(f"A: b{sign}c\r\n"), "200 GET / ")


def _lengths() -> Iterator[Case]:
    for text in ("3", "03", "0003", " 3", "3 ", "\t3\t"):
        sent = post(f"Content-Length: {text}\r\n", "abc")
        yield case("9112, 6.2", f"length {text!r}", sent, "200 POST / abc")
    yield case("9112, 6.2", "length 0", post("Content-Length: 0\r\n", ""), "200 POST / ")
    yield case("9112, 6.3", "no length", post("", ""), "200 POST / ")
    lower = post("content-length: 3\r\n", "abc")
    yield case("9110, 5.1", "a name in lower case", lower, "200 POST / abc")
    for text in (
        *("", " ", "x", "-3", "+3", "3x", "x3", "0x3", "3.0", "3,3", "3, 3", "3 3", "3;", "3e0"),
        *("\xb3", "3\x00", "--3", "1_0", "18446744073709551616", "9" * 40, "3\x0b", '"3"'),
    ):
        sent = post(f"Content-Length: {text}\r\n", "abc")
        yield refused("9112, 6.3", f"length {text!r}", sent)
    for first, second in (("3", "3"), ("3", "4"), ("4", "3"), ("3", "")):
        sent = post(f"Content-Length: {first}\r\nContent-Length: {second}\r\n", "abc")
        yield refused("9112, 6.3", f"lengths {first!r} and {second!r}", sent)


def _codings() -> Iterator[Case]:
    body = "3\r\nabc\r\n0\r\n\r\n"
    for text in ("chunked", "Chunked", "CHUNKED", "chunked ", "\tchunked"):
        sent = post(f"Transfer-Encoding: {text}\r\n", body)
        yield case("9112, 7", f"coding {text!r}", sent, "200 POST / abc")
    for text in (
        *(
            "",
            "identity",
            "gzip",
            "chunked, gzip",
            "chunked, chunked",
            "chunked, identity",
            "xchunked",
        ),
        *("chunkedx", "chunke", "chunked;a=b", ", chunked", "chunked,", '"chunked"', "\x0bchunked"),
        *("chunked\t", "chun\tked", "chunked\x00", "chunked gzip", "'chunked'"),
    ):
        sent = post(f"Transfer-Encoding: {text}\r\n", body)
        yield refused("9112, 6.3", f"coding {text!r}", sent)
    for text in ("gzip, chunked", "gzip,chunked", "identity, chunked", "a;b=c, chunked"):
        sent = post(f"Transfer-Encoding: {text}\r\n", body)
        yield refused("9112, 6.1", f"coding {text!r}", sent, "501")
    for first, second in (("chunked", "chunked"), ("chunked", "gzip"), ("chunked", "")):
        sent = post(f"Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n", body)
        yield refused("9112, 6.3", f"codings {first!r} and {second!r}", sent)
    for fields in (
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 13\r\n",
    ):
        yield refused("9112, 6.3", "a coding and a length", post(fields, body))
    old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n" + body
    yield refused("9112, 6.1", "a coding in HTTP/1.0", old)


def _chunks() -> Iterator[Case]:
    rule = "9112, 7.1"
    for size in ("3", "03", "0000000003"):
        yield case(rule, f"size {size}", chunked(f"{size}\r\nabc\r\n0\r\n\r\n"), "200 POST / abc")
    for size in ("a", "A", "0a", "0A"):
        sent = chunked(f"{size}\r\n0123456789\r\n0\r\n\r\n")
        yield case(rule, f"size {size}", sent, "200 POST / 0123456789")
    for last in ("0", "00", "0000"):
        yield case(rule, f"last chunk {last}", chunked(f"{last}\r\n\r\n"), "200 POST / ")
    two = chunked("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
    yield case(rule, "two chunks", two, "200 POST / abc")
    tricky = chunked("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n")
    yield case(rule, "data like a last chunk", tricky, "200 POST / \r\n0\r\n\r\n")
    for size in (
        *(
            "",
            " ",
            " 3",
            "+3",
            "-3",
            "0x3",
            "x",
            "3x",
            "g",
            "3.0",
            "3_0",
            "\t3",
            "\x003",
            "3,",
            '"3"',
        ),
        *("10000000000000003", "f" * 16 + "f", "\xb3", "3 ", "3\t", "3 3", "3\r", "3\x0b"),
    ):
        yield refused(rule, f"size {size!r}", chunked(f"{size}\r\nabc\r\n0\r\n\r\n"))
    for chunks, about in (
        *(("3\nabc\r\n0\r\n\r\n", "LF behind a size"), ("3\r\nabc\n0\r\n\r\n", "LF behind data")),
        *(
            ("3\r\nabc0\r\n\r\n", "nothing behind data"),
            ("3\r\nabcd\r\n0\r\n\r\n", "data too long"),
        ),
        *(("3\r\nab\r\n0\r\n\r\n", "data too short"), ("3\r\nabc\r0\r\n\r\n", "CR behind data")),
        *(("3\rabc\r\n0\r\n\r\n", "CR behind a size"), ("0\n\r\n", "LF behind the last size")),
        *(("0\r\n\n", "LF behind the last chunk"), ("0\r\rx", "CR CR behind the last size")),
    ):
        yield refused(rule, about, chunked(chunks))
    rule = "9112, 7.1.1"
    for extension in (";a", ";a=b", ';a="b"', ';a="b;c"', ";a;b=c", ";a=b;c", ';a="\\"b"'):
        sent = chunked(f"3{extension}\r\nabc\r\n0{extension}\r\n\r\n")
        yield case(rule, f"extension {extension}", sent, "200 POST / abc")
    for extension in (";a\n", ";a\rb", ";a\x00", '; a="\n"', ";\x7f", ";a=\x01"):
        sent = chunked(f"3{extension}\r\nabc\r\n0\r\n\r\n")
        yield refused(rule, f"extension {extension!r}", sent)


def _trailers() -> Iterator[Case]:
    rule = "9112, 7.1.2"
    for trailer in ("A: b", "A: b\r\nC: d", "Host: x", "Content-Type: x", "Connection: keep-alive"):
        sent = chunked(f"0\r\n{trailer}\r\n\r\n")
        yield case(rule, f"trailer {trailer!r}", sent, "200 POST / ")
    for trailer in ("Connection: close", "connection: a, close", "Proxy-Connection: close"):
        sent = chunked(f"0\r\n{trailer}\r\n\r\n")
        yield case("9110, 6.5.1", f"trailer {trailer!r}", sent, "200 POST / ", open=CLOSED)
        sent += get()
        about = f"a request behind the trailer {trailer!r}"
        yield case("9110, 6.5.1", about, sent, "200 POST / ", open=CLOSED)
    for trailer in ("Transfer-Encoding: chunked", "Transfer-Encoding: a", "Content-Length: 3"):
        yield refused("9110, 6.5.1", f"trailer {trailer!r}", chunked(f"0\r\n{trailer}\r\n\r\n"))
    for trailer in (
        "A",
        "A : b",
        ": b",
        " A: b",
        "A: b\r\n c",
        "A: b\rc",
        "A\x00: b",
        "A: \x00",
        "A: b\n",
    ):
        yield refused(rule, f"trailer {trailer!r}", chunked(f"0\r\n{trailer}\r\n\r\n"))


def _persistence() -> Iterator[Case]:
    rule = "9112, 9.3"
    for line, options, stays in (
        *(("1.1", "keep-alive", OPEN), ("1.1", "close", CLOSED), ("1.1", "Close", CLOSED)),
        *(("1.1", "keep-alive, close", CLOSED), ("1.1", "close, keep-alive", CLOSED)),
        *(("1.1", "a, close", CLOSED), ("1.1", "a,close,b", CLOSED), ("1.1", "close ", CLOSED)),
        *(("1.1", "closed", OPEN), ("1.1", "xclose", OPEN), ("1.1", "a", OPEN), ("1.1", "", OPEN)),
        *(("1.0", "keep-alive", OPEN), ("1.0", "Keep-Alive", OPEN), ("1.0", "a", CLOSED)),
        *(("1.0", "keep-alive, close", CLOSED), ("1.0", "close, keep-alive", CLOSED)),
        *(("1.0", "close", CLOSED), ("1.0", "keep-alivex", CLOSED), ("1.0", "", CLOSED)),
    ):
        sent = get(f"Connection: {options}\r\n", line=f"GET / HTTP/{line}")
        yield case(rule, f"{options!r} in {line}", sent, "200 GET / ", open=stays)
    apart = get("Connection: keep-alive\r\nConnection: close\r\n")
    yield case(rule, "two Connection fields", apart, "200 GET / ", open=CLOSED)
    old = get("Proxy-Connection: keep-alive\r\n", line="GET / HTTP/1.0")
    yield case(rule, "Proxy-Connection in 1.0", old, "200 GET / ", open=CLOSED)
    last = get("Connection: close\r\n") + get()
    yield case("9112, 9.6", "a request behind the last", last, "200 GET / ", open=CLOSED)
    for count in (2, 3, 40):
        yield case("9112, 9.3.2", f"{count} requests", get() * count, *["200 GET / "] * count)
    both = post("Content-Length: 3\r\n", "abc") + chunked("1\r\nd\r\n0\r\n\r\n") + get()
    answers = "200 POST / abc", "200 POST / d", "200 GET / "
    yield case("9112, 9.3.2", "bodies between requests", both, *answers)
    bad = get() + get(host="") + get()
    yield case("9112, 9.3.2", "a bad request between", bad, "200 GET / ", "400", open=CLOSED)
    inside = post("Content-Length: 28\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n") + get()
    hidden = "200 POST / GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    yield case("9112, 6.3", "a request as a body", inside.replace("28", "27"), hidden, "200 GET / ")
    for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        sent = post("Content-Length: 3\r\n", "abc").replace("POST", method)
        body = "" if method == "HEAD" else "abc"  # of the answer
        yield case("9110, 9.3", f"{method} with a body", sent, f"200 {method} / {body}")


def _other() -> Iterator[Case]:
    for fields in ("Upgrade: h2c\r\nConnection: Upgrade\r\n", "Upgrade: websocket\r\n"):
        sent = post(f"{fields}Content-Length: 3\r\n", "abc") + get()
        yield case("9110, 7.8", "an upgrade", sent, "200 POST / abc", "200 GET / ")
    expects = post("Expect: 100-continue\r\nContent-Length: 3\r\n", "abc")
    yield case("9110, 10.1.1", "100-continue", expects, "200 POST / abc")
    unknown = post("Expect: other\r\nContent-Length: 3\r\n", "abc")
    yield case("9110, 10.1.1", "another expectation", unknown, "200 POST / abc")
    preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield refused("9113, 3.4", "the preface of HTTP/2", preface, "501")
    yield refused("8446, 5.1", "TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + "\0" * 20)
    for head, bad in (("Host: a b\r\n", ""), ("Host: h\r\n", "A : b\r\n"), ("", "")):
        sent = get(bad, line="HEAD / HTTP/1.1", host=head)
        yield refused("9110, 9.3.2", "a malformed HEAD", sent)
    for sent, answers in (
        *((get(), ["200 GET / "]), (get() * 2, ["200 GET / "] * 2), ("GET / HT", []), ("", [])),
        *((post("Content-Length: 3\r\n", "ab"), ["400"]), (chunked("3\r\nab"), ["400"])),
        *((chunked("3\r\nabc\r\n"), ["400"]), (chunked("0\r\n"), ["400"])),
        (get() + post("Content-Length: 3\r\n", ""), ["200 GET / ", "400"]),
    ):
        about = f"half-close behind {sent[-12:]!r}"
        yield Case("9112, 8", about, sent.encode(), tuple(answers), CLOSED, eof=True)


def cases() -> list[Case]:
    """Return all cases."""
    families: Iterable[Iterator[Case]] = (
        *(_lines(), _versions(), _request_lines(), _targets(), _hosts(), _fields(), _lengths()),
        *(_codings(), _chunks(), _trailers(), _persistence(), _other()),
    )
    return [each for family in families for each in family]
