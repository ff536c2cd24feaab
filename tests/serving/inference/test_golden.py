"""Golden images are predicted anew, and what comes of it is counted."""

import asyncio
from pathlib import Path

import pytest
from PIL import Image

from serving.app.service import Service
from serving.errors import DeadlineExceeded
from serving.inference import golden as replays
from serving.inference.golden import Golden
from tests.serving.monitoring.test_metrics import value


def counted(service: Service, result: str, version: str = "2") -> float:
    page = service.metrics.page().decode()
    return value(page, "convserve_golden_images_total", version=version, result=result)


def test_each_image_of_each_version_has_its_turn(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "EVERY", 0.2)

    async def one_round() -> None:
        watching = asyncio.create_task(service.golden.watch())
        async with asyncio.timeout(30):
            while counted(service, "right", "1") < 4:
                await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(one_round())
    assert counted(service, "right") >= 2
    assert counted(service, "wrong") == counted(service, "failed") == 0
    page = service.metrics.page().decode()
    assert value(page, "convserve_images_total") == 0  # they are no predictions


def replay(service: Service, path: Path) -> None:
    model = service.repository.get("shade", 2)
    asyncio.run(service.golden.replay(model, path))


def test_what_is_wrong_or_fails_is_counted(service: Service, tmp_path: Path) -> None:
    Image.new("L", (6, 8), 250).save(tmp_path / "dark-1.png")
    (tmp_path / "dark-2.png").write_bytes(b"no image")
    replay(service, tmp_path / "dark-1.png")
    replay(service, tmp_path / "dark-2.png")
    replay(service, tmp_path / "gone-3.png")
    assert [counted(service, each) for each in ("right", "wrong", "failed")] == [0, 1, 1]


def test_where_there_is_no_time_nothing_is_counted(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object, **__: object) -> None:
        raise DeadlineExceeded("The deadline passed.")

    monkeypatch.setattr(service.pipeline.batcher, "predict", late)
    Image.new("L", (6, 8), 250).save(tmp_path / "light-1.png")
    replay(service, tmp_path / "light-1.png")
    assert [counted(service, each) for each in ("right", "wrong", "failed")] == [0, 0, 0]
    assert isinstance(service.golden, Golden)
