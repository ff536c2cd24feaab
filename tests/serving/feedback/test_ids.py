"""Prediction ids are signed and read, and refused in every way in which they may be wrong."""

import base64
import hashlib
import hmac
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ExpiredId, ForgedId, MalformedId, ServingError
from serving.feedback.ids import LONGEST, SignedPrediction, Signer

KEY, OTHER = "a key of a test, long enough", "another key of a test, as long"
NOW = 1_800_000_000


@pytest.fixture
def signer() -> Signer:
    return Signer([KEY], days=30)


def test_an_id_holds_the_prediction(signer: Signer) -> None:
    before = int(time.time())
    first, second = signer.sign("cats_vs_dogs", 3, [("cat", 0.75), ("dog", 1.0)])
    read = signer.read(first)
    assert (read.model, read.version, read.label) == ("cats_vs_dogs", 3, "cat")
    assert read.confidence == pytest.approx(0.75, abs=1e-5)
    assert before <= read.at <= time.time()
    other = signer.read(second)
    assert (other.label, other.confidence) == ("dog", 1.0)
    assert other.key != read.key
    assert other.key[:-4] == read.key[:-4]
    assert len(first) < 100


def test_no_two_requests_share_a_key(signer: Signer) -> None:
    made = [signer.sign("digits", 1, [("7", 1.0)])[0] for _ in range(100)]
    assert len({signer.read(each).key for each in made}) == 100


def test_a_second_key_is_accepted_and_does_not_sign() -> None:
    old = Signer([OTHER], days=30).sign("digits", 1, [("7", 0.5)])[0]
    both = Signer([KEY, OTHER], days=30)
    assert both.read(old).label == "7"
    new = both.sign("digits", 1, [("7", 0.5)])[0]
    assert Signer([KEY], days=30).read(new).label == "7"
    with pytest.raises(ForgedId) as raised:
        Signer([OTHER], days=30).read(new)
    assert str(raised.value) == "The id was changed, or signed with a key that is unknown here."


def test_an_id_of_an_unknown_key_is_forged(signer: Signer) -> None:
    with pytest.raises(ForgedId):
        signer.read(Signer([OTHER], days=30).sign("digits", 1, [("7", 1.0)])[0])


def test_every_changed_bit_is_noticed(signer: Signer) -> None:
    data = base64.urlsafe_b64decode(signer.sign("digits", 1, [("7", 1.0)])[0] + "==")
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        text = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
        with pytest.raises((ForgedId, MalformedId)):
            signer.read(text)


def test_every_truncated_id_is_refused(signer: Signer) -> None:
    text = signer.sign("digits", 1, [("7", 1.0)])[0]
    for length in range(len(text)):
        with pytest.raises(MalformedId):
            signer.read(text[:length])
    with pytest.raises(MalformedId, match="truncated"):
        signer.read(text[:40])


@pytest.mark.parametrize("text", ["", "7", "=", "é", "AV4=", " AV4", "A" * 5000, "A" * 99 + "B"])
def test_any_other_text_is_malformed(signer: Signer, text: str) -> None:
    with pytest.raises(MalformedId):
        signer.read(text)


def test_an_id_has_one_spelling(signer: Signer) -> None:
    text = next(
        each
        for each in (signer.sign("digits", 1, [("7" * n, 1.0)])[0] for n in range(1, 4))
        if len(each) % 4 != 0
    )
    for other in (text + "=", text + "\n", text[:-1] + chr(ord(text[-1]) + 1)):
        with pytest.raises(MalformedId):
            signer.read(other)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that sets the time, which is NOW."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr("serving.feedback.ids.time.time", lambda: seconds)

    set_to(NOW)
    return set_to


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (2.5 * 86400 + 1, "The prediction is 2.5 days old. Expected at most 2.5."),
        (40 * 86400, "The prediction is 40.0 days old. Expected at most 2.5."),
        (-301, "The prediction is -0.0 days old. Expected at most 2.5."),
    ],
    ids=["old", "far older", "from the future"],
)
def test_an_id_of_another_time_has_expired(
    clock: Callable[[float], None], seconds: float, message: str
) -> None:
    signer = Signer([KEY], days=2.5)
    text = signer.sign("digits", 1, [("7", 1.0)])[0]
    clock(NOW + seconds)
    with pytest.raises(ExpiredId) as raised:
        signer.read(text)
    assert str(raised.value) == message


@pytest.mark.parametrize("seconds", [2.5 * 86400, -300], ids=["old", "clock that is behind"])
def test_an_id_is_accepted_up_to_the_last_second(
    clock: Callable[[float], None], seconds: float
) -> None:
    signer = Signer([KEY], days=2.5)
    text = signer.sign("digits", 1, [("7", 1.0)])[0]
    clock(NOW + seconds)
    assert signer.read(text).at == NOW


def build(*, kind: int = 1, name: bytes = b"digits", label: bytes = b"7", more: bytes = b"") -> str:
    """Return an id as the module's docstring describes it."""
    key = hashlib.sha256(KEY.encode()).digest()[:4]
    body = struct.pack(">B4sI12sHIH", kind, key, NOW, bytes(range(12)), 0, 3, 49151)
    body += bytes([len(name)]) + name + bytes([len(label)]) + label + more
    signed = body + hmac.digest(KEY.encode(), body, "sha256")[:16]
    return base64.urlsafe_b64encode(signed).decode().rstrip("=")


def test_the_format_of_an_id_is_the_documented_one(
    clock: Callable[[float], None], signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.feedback.ids.os.urandom", lambda count: bytes(range(count)))
    first, second = signer.sign("digits", 3, [("7", 0.75), ("1", 2.0)])
    assert first == build()
    expected = SignedPrediction(
        "000102030405060708090a0b0000", "digits", 3, "7", 49151 / 65535, NOW
    )
    assert signer.read(first) == expected
    assert signer.read(second).key.endswith("0b0001")
    assert signer.read(second).confidence == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (build(kind=2), "The id has format 2. Expected 1."),
        (build(more=b"\0"), "The id is truncated. Use the `id` returned with a prediction."),
        (build()[:44], "The id is truncated. Use the `id` returned with a prediction."),
        (build()[:64], "The id is truncated. Use the `id` returned with a prediction."),
        (
            "!" * 21,
            f"{'!' * 20!r} is not a prediction id. Use the `id` returned with a prediction.",
        ),
        ("A" * 1024, "The id has format 0. Expected 1."),
        ("A" * 1025, f"{'A' * 20!r} is not a prediction id. Use the `id` returned with a predict"),
    ],
    ids=["format", "third text", "short", "shorter label", "characters", "longest", "long"],
)
def test_a_malformed_id_is_described(signer: Signer, text: str, message: str) -> None:
    with pytest.raises(MalformedId) as raised:
        signer.read(text)
    assert str(raised.value).startswith(message)


def test_the_longest_names_and_labels_are_cut_to_a_byte_of_length(signer: Signer) -> None:
    text = signer.sign("m" * 256, 1, [("é" * 128, 1.0)])[0]
    read = signer.read(text)
    assert (read.model, read.label) == ("m" * 255, "é" * 127)
    assert len(text) < LONGEST


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode().strip("=")))
def test_any_text_raises_one_of_the_known_errors(text: str) -> None:
    with pytest.raises((MalformedId, ForgedId, ExpiredId)) as raised:
        Signer([KEY], days=30).read(text)
    assert isinstance(raised.value, ServingError)
