"""Prediction ids are signed and read, and refused in every way in which they may be wrong."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ExpiredId, ForgedId, MalformedId, ServingError
from serving.feedback.ids import Signer

KEY, OTHER = "a key of a test, long enough", "another key of a test, as long"


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
    with pytest.raises(ForgedId, match="a key that is unknown here"):
        Signer([OTHER], days=30).read(new)


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


@pytest.mark.parametrize(
    "text", ["", "7", "=", "é", "AV4=", " AV4", "A" * 5000, "A" * 99 + "B"], ids=ascii
)
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


@pytest.mark.parametrize(("seconds", "days"), [(100, 0.001), (-1000, 30)], ids=["old", "to come"])
def test_one_of_another_time_has_expired(
    signer: Signer, monkeypatch: pytest.MonkeyPatch, seconds: int, days: float
) -> None:
    text = signer.sign("digits", 1, [("7", 1.0)])[0]
    now = time.time() + seconds
    monkeypatch.setattr("serving.feedback.ids.time.time", lambda: now)
    with pytest.raises(ExpiredId, match="days old"):
        Signer([KEY], days=days).read(text)


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode().strip("=")))
def test_any_text_raises_one_of_the_known_errors(text: str) -> None:
    with pytest.raises((MalformedId, ForgedId, ExpiredId)) as raised:
        Signer([KEY], days=30).read(text)
    assert isinstance(raised.value, ServingError)
