"""Which orientation is read from EXIF, and that nothing else of it is."""

import struct

import pytest

from serving.inference.images import exif

SHORT, LONG, DOUBLE = 3, 4, 12


def block(*entries: tuple[int, int, int, bytes], order: str = "<", start: int = 8) -> bytes:
    """Write an EXIF block; an entry is a tag, a type, a count and four bytes."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(struct.pack(f"{order}HHI4s", *entry) for entry in entries)
    return head.ljust(start, b"\0") + directory


def turned(value: int, kind: int = SHORT, count: int = 1) -> tuple[int, int, int, bytes]:
    return 0x0112, kind, count, struct.pack("<HH", value, 0)


MAKER = 0x010F, 2, 4, b"abc\0"
READ = {
    "little-endian": block(turned(6)),
    "big-endian": block((0x0112, SHORT, 1, b"\0\6\0\0"), order=">"),
    "a second entry": block(MAKER, turned(6)),
    "a directory further on": block(turned(6), start=500),
    "marked": b"Exif\0\0" + block(turned(6)),
    "marked twice": b"Exif\0\0Exif\0\0" + block(turned(6)),
    "cut behind the entry": block(turned(6), MAKER)[:-12],
    "64 kB": block(turned(6)).ljust(64 * 1024, b"\0"),
}


@pytest.mark.parametrize("data", READ.values(), ids=READ.keys())
def test_an_orientation_is_found(data: bytes) -> None:
    assert exif.orientation(data) == 6


IGNORED = {
    "nothing": b"",
    "a mark": b"Exif\0\0",
    "no byte order": b"XX*\0" + block(turned(6))[4:],
    "no entry": block(),
    "another tag": block(MAKER),
    "two values": block(turned(6, count=2)),
    "no value": block(turned(6, count=0)),
    "many values": block(turned(6, count=2**32 - 1)),
    "a LONG": block(turned(6, kind=LONG)),
    "a DOUBLE": block(turned(6, kind=DOUBLE)),
    "a second orientation": block(turned(6, count=2), turned(6)),
    "a cut entry": block(turned(6))[:-3],
    "no directory": block(turned(6))[:8],
    "a directory behind the end": block(turned(6))[:4] + b"\xff\xff\xff\xff",
    "more than 64 kB": block(turned(6)).ljust(64 * 1024 + 1, b"\0"),
}


@pytest.mark.parametrize("data", IGNORED.values(), ids=IGNORED.keys())
def test_any_other_orientation_is_ignored(data: bytes) -> None:
    assert exif.orientation(data) == 1


@pytest.mark.parametrize("value", [0, 1, 9, 65535])
def test_an_orientation_without_a_turn_turns_nothing(value: int) -> None:
    assert exif.turn({"exif": block(turned(value))}) is None


def profile(data: bytes) -> str:
    return f"\nexif\n{len(data):8}\n{data.hex()}\n"


def test_the_older_place_of_exif_in_png_is_read() -> None:
    assert exif.turn({exif.PROFILE: profile(block(turned(6)))}) == exif.TURNS[6]
    both = {"exif": block(turned(3)), exif.PROFILE: profile(block(turned(6)))}
    assert exif.turn(both) == exif.TURNS[3]


@pytest.mark.parametrize(
    "text", ["", "\nexif\n 5\nno digits\n", profile(block(turned(6)).ljust(100_000))]
)
def test_a_damaged_or_large_profile_turns_nothing(text: str) -> None:
    assert exif.turn({exif.PROFILE: text}) is None
