"""Sign prediction ids: all that any replica needs to judge a label that arrives days later.

An id is signed, not encrypted: anyone can read the prediction in it, but only the holder of a key
can make one. Knows nothing of HTTP, models or databases.

    format 1 | key 4 | seconds 4 | random 12 | place 2 | model version 4 | confidence 2
    | length 1 | model | length 1 | label | the first 16 bytes of HMAC-SHA256

as base64url without padding, big-endian. The key is named by the start of its SHA-256; the place is
that of the image in its request; the confidence is in 65,535ths. Random and place together identify
the prediction: its label is stored once under them.
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
from serving.feedback.labels import SCALE

FORMAT = 1
LONGEST = 1024  # characters: far more than any of ours
AHEAD = 300  # seconds by which another replica's clock may be ahead
DAY = 86400  # seconds

_HEAD = struct.Struct(">B4sI12sHIH")
_SIGNATURE = 16  # bytes: RFC 2104 allows half of the hash
_LONGEST_TEXT = 255  # bytes of a name or a label
_EXPECTED = "Use the `id` returned with a prediction."


@dataclass(frozen=True)
class SignedPrediction:
    """A prediction, as read from its id."""

    key: str  # hexadecimal, unique to the prediction
    model: str
    version: int
    label: str  # the predicted one
    confidence: float  # in that label, 0 to 1
    at: int  # seconds since 1970


class Signer:
    """A maker and reader of ids."""

    def __init__(self, keys: Sequence[str], *, days: float) -> None:
        """Sign with the first of ``keys``, accept all; an id expires after ``days``."""
        # Copied for each id, in half the time of hashing the key again.
        self._keys = {_key_name(key): hmac.new(key.encode(), b"", "sha256") for key in keys}
        self._own, self._lifetime = _key_name(keys[0]), days * DAY

    def sign(self, model: str, version: int, answers: Sequence[tuple[str, float]]) -> list[str]:
        """Return an id for each image of a request, from its best label and that probability."""
        now, random = int(time.time()), os.urandom(12)
        name, own, ids = _prefixed(model), self._own, []
        for place, (label, p) in enumerate(answers):
            units = min(SCALE, round(p * SCALE))
            head = _HEAD.pack(FORMAT, own, now, random, place, version, units)
            body = head + name + _prefixed(label)
            ids.append(_encoded(body + self._signature(own, body)))
        return ids

    def _signature(self, key: bytes, body: bytes) -> bytes:
        signing = self._keys[key].copy()
        signing.update(body)
        return signing.digest()[:_SIGNATURE]

    def read(self, text: str) -> SignedPrediction:
        """Return the prediction in an id.

        Raises:
            MalformedId: if the text is not an id, or a truncated one.
            ForgedId: if no accepted key made its signature.
            ExpiredId: if the prediction is too old to be labelled.
        """
        data = _decoded(text)
        body, signature = data[:-_SIGNATURE], data[-_SIGNATURE:]
        if len(body) < _HEAD.size:
            raise MalformedId(f"The id is truncated. {_EXPECTED}")
        kind, key, at, random, place, version, units = _HEAD.unpack_from(body)
        if kind != FORMAT:
            raise MalformedId(f"The id has format {kind}. Expected {FORMAT}.")
        texts = _texts(body[_HEAD.size :])
        if len(texts) != 2:
            raise MalformedId(f"The id is truncated. {_EXPECTED}")
        if key not in self._keys or not hmac.compare_digest(self._signature(key, body), signature):
            raise ForgedId("The id was changed, or signed with a key that is unknown here.")
        age = time.time() - at
        if not -AHEAD <= age <= self._lifetime:
            raise ExpiredId(
                f"The prediction is {age / DAY:.1f} days old. Expected at most"
                f" {self._lifetime / DAY:g}."
            )
        return SignedPrediction(
            random.hex() + f"{place:04x}", texts[0], version, texts[1], units / SCALE, at
        )


def _key_name(key: str) -> bytes:
    """Return the name of a key in its ids."""
    return hashlib.sha256(key.encode()).digest()[:4]


@lru_cache(maxsize=1024)  # there are few names and labels
def _prefixed(text: str) -> bytes:
    """Return a text after its length, cut to what one byte of length allows."""
    data = text.encode()[:_LONGEST_TEXT]
    return bytes((len(data),)) + data


def _texts(data: bytes) -> list[str]:
    """Return the length-prefixed texts of ``data``; none if the last one is truncated."""
    texts = []
    while data:
        end = 1 + data[0]
        if len(data) < end:
            return []
        texts.append(data[1:end].decode("utf-8", "ignore"))
        data = data[end:]
    return texts


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Return the bytes of an id, accepting only the one canonical spelling."""
    if len(text) <= LONGEST and text.isascii():
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except binascii.Error:
            data = b""
        if data and _encoded(data) == text:
            return data
    raise MalformedId(f"{text[:20]!r} is not a prediction id. {_EXPECTED}")
