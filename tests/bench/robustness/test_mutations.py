import random

import pytest

from bench.robustness import mutations


def test_the_same_seed_damages_alike_and_another_does_not() -> None:
    made = [mutations.mutated(1, index) for index in range(60)]
    assert made == [mutations.mutated(1, index) for index in range(60)]
    assert made != [mutations.mutated(2, index) for index in range(60)]
    assert len(set(made)) > 55
    assert not set(made) & set(mutations.sound())


def test_every_accepted_format_is_damaged() -> None:
    starts = {data[:4] for data in mutations.sound()}
    assert {b"\x89PNG", b"RIFF", b"GIF8"} < starts
    assert {start[:2] for start in starts} > {b"\xff\xd8", b"BM"}


@pytest.mark.parametrize("damage", [mutations.swell, mutations.scans])
def test_a_sound_image_gets_far_too_many_pieces(damage: mutations.Damage) -> None:
    sound = [data for data in mutations.sound() if data.startswith(tuple(mutations.FORMATS))]
    assert len(sound) > 10
    for seed, data in enumerate(sound):
        assert len(damage(random.Random(seed), data)) >= len(data) + 3 * mutations.MANY[0]


@pytest.mark.parametrize("start", mutations.FORMATS, ids=["PNG", "JPEG", "WebP"])
def test_a_file_is_split_into_pieces_and_joined_again(start: bytes) -> None:
    container = mutations.FORMATS[start]
    for data in mutations.sound():
        if data.startswith(start):
            assert container.join(container.split(data)) == data
