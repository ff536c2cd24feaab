"""Ids of predictions, signed: what any replica needs to judge a label that comes days later.

Knows bytes, keys and the clock; knows nothing of HTTP, of models or of where labels go. An id is
signed and not secret: who has it reads what was predicted, and nobody without a key can make one.

    version 1 | key 4 | seconds 4 | random 12 | place 2 | model version 4 | confidence 2
    | length 1 | model | length 1 | label | HMAC-SHA256, its first 16 bytes

as base64url without padding, big-endian. The key is told by the start of its SHA-256; the place is
that of the image in its request; the confidence is in 65,535ths. Random and place name the
prediction: they are the key under which its label is kept, once.
"""

import base64
import binascii
import hashlib
import hmac
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from serving.errors import ExpiredId, ForgedId, MalformedId

FORMAT = 1
SCALE = 65535
LONGEST = 1024  # characters: far more than any of ours
AHEAD = 300  # seconds by which another replica's clock may be ahead

_HEAD = struct.Struct(">B4sI12sHIH")
_SIGNATURE = 16  # bytes: RFC 2104 allows half of the hash
_MOST = 255  # bytes of a name or a label


@dataclass(frozen=True)
class Signed:
    """A prediction as its id tells it."""

    key: str  # hexadecimal; one for each prediction
    model: str
    version: int
    label: str  # that was predicted
    confidence: float  # of that label, 0 to 1
    at: int  # seconds since 1970


class Signer:
    """Makes ids and reads them."""

    def __init__(self, keys: Sequence[str], *, days: float) -> None:
        """The first of ``keys`` signs, all are accepted; an id expires after so many ``days``."""
        # Copied for each id: half the time of hashing the key again.
        self._keys = {_told(key): hmac.new(key.encode(), b"", "sha256") for key in keys}
        self._own, self._lifetime = _told(keys[0]), days * 86400

    def sign(self, model: str, version: int, answers: Sequence[tuple[str, float]]) -> list[str]:
        """An id for each image of a request: its best label and that label's probability."""
        now, random = int(time.time()), os.urandom(12)
        name, own, ids = _counted(model), self._own, []
        for place, (label, p) in enumerate(answers):
            units = min(SCALE, round(p * SCALE))
            head = _HEAD.pack(FORMAT, own, now, random, place, version, units)
            told = head + name + _counted(label)
            ids.append(_text(told + self._signature(own, told)))
        return ids

    def _signature(self, key: bytes, told: bytes) -> bytes:
        signing = self._keys[key].copy()
        signing.update(told)
        return signing.digest()[:_SIGNATURE]

    def read(self, text: str) -> Signed:
        """What an id tells.

        Raises:
            MalformedId: it is cut short, or no id at all.
            ForgedId: no key that this service has made the signature.
            ExpiredId: it is too old to be labelled.
        """
        data = _bytes(text)
        told, signature = data[:-_SIGNATURE], data[-_SIGNATURE:]
        if len(told) < _HEAD.size:
            raise MalformedId("The id is cut short. Expected one as a prediction told it.")
        head = _HEAD.unpack_from(told)
        if head[0] != FORMAT:
            raise MalformedId(f"The id has format {head[0]}. Expected {FORMAT}.")
        if len(told) != _size(told):
            raise MalformedId("The id is cut short. Expected one as a prediction told it.")
        known = head[1] in self._keys
        if not known or not hmac.compare_digest(self._signature(head[1], told), signature):
            raise ForgedId(
                "The id was changed, or signed by a key that this service does not have."
            )
        return self._fresh(told)

    def _fresh(self, told: bytes) -> Signed:
        _, _, at, random, place, version, confidence = _HEAD.unpack_from(told)
        age = time.time() - at
        if age > self._lifetime or age < -AHEAD:
            days = self._lifetime / 86400
            raise ExpiredId(
                f"The prediction is {age / 86400:.1f} days old. Expected {days:g} at most."
            )
        name, rest = _cut(told[_HEAD.size :])
        label, _ = _cut(rest)
        key = random.hex() + f"{place:04x}"
        return Signed(key, name, version, label, confidence / SCALE, at)


def _told(key: str) -> bytes:
    """How an id names the key that signed it."""
    return hashlib.sha256(key.encode()).digest()[:4]


@lru_cache(maxsize=1024)  # of names and labels there are few
def _counted(text: str) -> bytes:
    """A text behind its length; one that is too long is cut, which no name of ours is."""
    data = text.encode()[:_MOST]
    return bytes((len(data),)) + data


def _size(told: bytes) -> int:
    """How long it is by what it says of itself."""
    label = _HEAD.size + 1 + int.from_bytes(told[_HEAD.size : _HEAD.size + 1])
    return label + 1 + int.from_bytes(told[label : label + 1])


def _cut(data: bytes) -> tuple[str, bytes]:
    size = data[0]
    return data[1 : 1 + size].decode("utf-8", "ignore"), data[1 + size :]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """The bytes of an id, if this is the one way to write them."""
    if len(text) <= LONGEST and text.isascii():
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except binascii.Error:
            data = b""
        if data and _text(data) == text:
            return data
    raise MalformedId(f"The id {text[:20]!r} is none. Expected one as a prediction told it.")
