"""The published versions become the served ones; broken ones are refused, the others continue."""

import asyncio
import gc
import json
import logging
import os
import re
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from serving.inference.models import worker_state
from serving.app.service import Service
from serving.app import SERVICE, create_app
from serving.errors import ModelError, UnknownModel, UnknownVersion
from serving.monitoring.metrics import Metrics
from serving.inference.models.model import Model
from serving.inference.models.published import Fingerprint
from serving.inference.models.worker_state import Workers, forget
from serving.inference.models.reloader import Reloader, _without_folders
from serving.settings import Settings
from tests.serving.front import Client
from tests.serving.samples import add_int8, png, publish, sum_up
from tests.serving.monitoring.test_metrics import labels, value
from tests.serving.waiting import until

DARK = png(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One model of one version, to be changed."""
    publish(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def reloader(folder: Path) -> Reloader:
    made = Reloader(Settings(models=folder), Metrics(), Workers(None, 0))
    made.refresh()
    assert served(made) == ["shade 1"]
    return made


def served(reloader: Reloader) -> list[str]:
    return [str(model) for model in reloader.repository]


def route(folder: Path, rule: Any) -> None:
    (folder / "routing.json").write_text(json.dumps({"shade": rule}))


def test_a_new_version_is_served_and_a_removed_one_is_not(
    reloader: Reloader, folder: Path
) -> None:
    publish(folder, version=2)
    reloader.refresh()
    assert served(reloader) == ["shade 1", "shade 2"]
    assert reloader.repository.get("shade").version == 2
    shutil.rmtree(folder / "shade" / "2")
    reloader.refresh()
    assert reloader.repository.get("shade").version == 1
    with pytest.raises(UnknownVersion):
        reloader.repository.get("shade", 2)


def test_a_new_model_is_served_and_a_removed_one_is_not(
    reloader: Reloader, folder: Path
) -> None:
    publish(folder, name="tint")
    shutil.rmtree(folder / "shade")
    reloader.refresh()
    assert served(reloader) == ["tint 1"]
    with pytest.raises(UnknownModel):
        reloader.repository.get("shade")


def test_nothing_is_loaded_if_nothing_has_changed(reloader: Reloader, folder: Path) -> None:
    publish(folder, version=2)
    reloader.refresh()
    before, (one, two) = reloader.repository, reloader.repository
    reloader.refresh()
    assert reloader.repository is before
    publish(folder, version=3)
    reloader.refresh()
    assert list(reloader.repository)[:2] == [one, two]


def truncate(path: Path) -> None:
    file = path / "model.onnx"
    file.write_bytes(file.read_bytes()[:200])


def tamper(path: Path) -> None:
    sum_up(path)
    (path / "golden" / "dark-1.png").write_bytes(png(20))


def misname(path: Path) -> None:
    shutil.copytree(path.with_name("1"), path, dirs_exist_ok=True)


def without_golden(path: Path) -> None:
    shutil.rmtree(path / "golden")


def swap_golden(path: Path) -> None:
    (path / "golden" / "dark-1.png").rename(path / "golden" / "light-2.png")


BROKEN = [
    pytest.param(truncate, "cannot be loaded by onnxruntime", id="truncated"),
    pytest.param(tamper, "dark-1.png is not the file that was published", id="tampered"),
    pytest.param(misname, "metadata 'version' is '1'. Expected '2'.", id="of another name"),
    pytest.param(without_golden, "golden holds no image", id="without golden images"),
    pytest.param(swap_golden, "for the golden image", id="wrong on a golden image"),
]


@pytest.mark.parametrize(("harm", "reason"), BROKEN)
def test_a_broken_version_is_refused_once_and_the_others_are_served(
    reloader: Reloader,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], None],
    reason: str,
) -> None:
    harm(publish(folder, version=2))
    publish(folder, name="tint")
    for _ in range(3):
        reloader.refresh()
    assert served(reloader) == ["shade 1", "tint 1"]
    assert reloader.refused.keys() == {"shade/2"}
    assert reason in reloader.refused["shade/2"]
    (line,) = [record for record in caplog.records if record.message == "refused"]
    assert (line.levelno, vars(line)["path"]) == (logging.ERROR, "shade/2")
    assert reason in vars(line)["reason"]
    page = reloader._metrics.page().decode()
    assert value(page, "convserve_refused", path="shade/2") == 1
    shutil.rmtree(folder / "shade" / "2")
    publish(folder, version=2)
    reloader.refresh()
    assert served(reloader) == ["shade 1", "shade 2", "tint 1"]
    assert reloader.refused == {}
    assert labels(reloader._metrics.page().decode(), "convserve_refused", "path") == set()


@pytest.mark.parametrize("name", ["Shade/1", "shade/latest"])
def test_a_misnamed_folder_is_refused_alone(reloader: Reloader, folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    publish(folder, version=2)
    reloader.refresh()
    assert served(reloader) == ["shade 1", "shade 2"]
    (reason,) = reloader.refused.values()
    assert "is not a valid name" in reason


def test_a_version_that_is_copied_file_by_file_is_served_when_complete(
    reloader: Reloader, folder: Path, tmp_path: Path
) -> None:
    whole = publish(tmp_path / "elsewhere", version=2)
    copy = folder / "shade" / "2"
    copy.mkdir()
    for file in sorted(path for path in whole.rglob("*") if path.is_file()):
        assert served(reloader) == ["shade 1"]
        target = copy / file.relative_to(whole)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes()[:50])
        reloader.refresh()
        target.write_bytes(file.read_bytes())
        reloader.refresh()
    assert served(reloader) == ["shade 1", "shade 2"]


def test_a_version_that_breaks_is_served_from_memory(reloader: Reloader, folder: Path) -> None:
    (before,) = reloader.repository
    truncate(folder / "shade" / "1")
    reloader.refresh()
    assert list(reloader.repository) == [before]
    assert "cannot be loaded" in reloader.refused["shade/1"]


def test_a_version_that_is_changed_in_place_is_loaded_again(
    reloader: Reloader, folder: Path
) -> None:
    (before,) = reloader.repository
    shutil.rmtree(folder / "shade" / "1")
    publish(folder, metadata={"title": "Another"})
    reloader.refresh()
    (after,) = reloader.repository
    assert after is not before
    assert after.about["title"] == "Another"


def test_an_unreadable_folder_retires_nothing(reloader: Reloader, folder: Path) -> None:
    (before,) = reloader.repository
    folder.rename(folder.with_name("moved"))
    reloader.refresh()
    assert list(reloader.repository) == [before]
    assert "No such file or directory" in reloader.refused["."]
    folder.with_name("moved").rename(folder)
    reloader.refresh()
    assert (list(reloader.repository), reloader.refused) == ([before], {})


@pytest.mark.parametrize("left", [None, "Shade"])
def test_an_empty_folder_retires_nothing(
    reloader: Reloader, folder: Path, left: str | None
) -> None:
    before = list(reloader.repository)
    shutil.rmtree(folder / "shade")
    if left is not None:
        (folder / left).mkdir()
    reloader.refresh()
    assert list(reloader.repository) == before
    assert "No model is published in" in reloader.refused["."]


def test_a_refused_version_is_loaded_again_on_request(
    reloader: Reloader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(folder, version=2)
    with monkeypatch.context() as patched:
        patched.setattr(reloader, "_load", lambda key, _: {}[key])
        reloader.refresh()
    assert reloader.refused == {"shade/2": "shade/2 cannot be loaded: KeyError('shade/2')."}
    reloader.refresh()
    assert served(reloader) == ["shade 1"]
    reloader.refresh(retry=True)
    assert (served(reloader), reloader.refused) == (["shade 1", "shade 2"], {})


def test_the_routing_moves_the_default_and_the_labels(reloader: Reloader, folder: Path) -> None:
    publish(folder, version=2)
    route(folder, {"default": 1, "labels": {"stable": 1, "next": 2}})
    reloader.refresh()
    get = reloader.repository.get
    assert [get("shade", each).version for each in (None, "stable", "next", 2)] == [1, 1, 2, 2]
    with pytest.raises(UnknownVersion, match=r"'old'\. Known versions: 1, 2\. Known labels: next,"):
        get("shade", "old")
    (folder / "routing.json").unlink()
    reloader.refresh()
    assert reloader.repository.get("shade").version == 2


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"default": 3}, "names version 3 of 'shade'. Loaded versions: 1, 2."),
        ({"default": "x"}, "Known labels: none."),
    ],
)
def test_a_refused_routing_leaves_the_old_one_in_force(
    reloader: Reloader, folder: Path, rule: Any, reason: str
) -> None:
    publish(folder, version=2)
    route(folder, {"default": 1})
    reloader.refresh()
    route(folder, rule)
    reloader.refresh()
    assert reloader.repository.get("shade").version == 1
    assert reason in reloader.refused["routing.json"]
    assert value(reloader._metrics.page().decode(), "convserve_refused", path="routing.json") == 1


def test_a_routing_is_accepted_when_the_version_that_it_names_is_published(
    reloader: Reloader, folder: Path
) -> None:
    publish(folder, version=3)
    route(folder, {"default": 2})
    reloader.refresh()
    assert reloader.repository.get("shade").version == 3
    publish(folder, version=2)
    reloader.refresh()
    assert (reloader.repository.get("shade").version, reloader.refused) == (2, {})


def test_a_version_that_the_routing_names_is_not_retired(reloader: Reloader, folder: Path) -> None:
    publish(folder, version=2)
    route(folder, {"default": 1})
    reloader.refresh()
    shutil.rmtree(folder / "shade" / "1")
    reloader.refresh()
    assert reloader.repository.get("shade").version == 1
    assert reloader.refused.keys() == {"routing.json", "shade/1"}
    route(folder, {"default": 2})
    reloader.refresh()
    assert (served(reloader), reloader.refused) == (["shade 2"], {})


def test_a_new_worker_uses_the_routing_that_the_others_accepted(
    folder: Path, tmp_path: Path
) -> None:
    publish(folder, version=2)
    route(folder, {"default": 1})
    run = tmp_path / "run"
    run.mkdir()
    settings = Settings(models=folder)
    first = Reloader(settings, Metrics(), Workers(run, 0))
    first.refresh()
    (folder / "routing.json").write_text("{")
    second = Reloader(settings, Metrics(), Workers(run, 1))
    for reloader in (first, second):
        reloader.refresh()
        assert reloader.repository.get("shade").version == 1
        assert reloader.refused.keys() == {"routing.json"}
    shutil.rmtree(folder / "shade" / "1")
    third = Reloader(settings, Metrics(), Workers(run, 2))
    third.refresh()
    assert served(third) == ["shade 2"]


def test_workers_see_each_other_until_they_end(folder: Path, tmp_path: Path) -> None:
    workers = [Workers(tmp_path, slot) for slot in (0, 1)]
    for each in workers:
        Reloader(Settings(models=folder), Metrics(), each).refresh()
    assert [state["worker"] for state in workers[0].states()] == [0, 1]
    assert workers[0].states() == workers[1].states()
    forget(tmp_path, 1)
    assert [state["worker"] for state in workers[0].states()] == [0]


def test_no_reason_for_clients_holds_an_absolute_path(reloader: Reloader, folder: Path) -> None:
    broken = publish(folder, version=2)
    (broken / "model.onnx").write_bytes(b"no graph")
    (publish(folder, version=3) / "golden" / "dark-1.png").write_bytes(b"no image")
    (folder / "Shade").mkdir()
    (folder / "tint").symlink_to("/etc")
    (folder / "routing.json").write_text("{")
    reloader.refresh()
    reasons = {**reloader.refused, **reloader.workers.states()[0]["refused"]}
    assert reasons == reloader.refused
    assert reasons.keys() == {"shade/2", "shade/3", "Shade", "tint", "routing.json"}
    text = " ".join(reasons.values())
    assert f"{folder.name}/shade/2/model.onnx cannot be loaded" in text
    assert not re.search(r"(^|[\s'\"(])/\w", text), text
    assert str(os.getpid()) not in str(reloader.workers.states())


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("/srv/models/a/1/x.onnx broke at /usr/lib/y.so:3.", "models/a/1/x.onnx broke at y.so:3."),
        ("cannot open '/etc/ssl/key.pem' and/or (/tmp/a/b)", "cannot open 'key.pem' and/or (b)"),
        ("image/png or https://a.example/b", "image/png or https://a.example/b"),
    ],
)
def test_absolute_paths_are_shortened(reason: str, shown: str) -> None:
    assert _without_folders(reason, Path("/srv/models")) == shown


def test_a_version_that_becomes_a_link_out_of_the_folder_stays_as_it_was(
    reloader: Reloader, folder: Path, tmp_path: Path
) -> None:
    (folder / "shade" / "1").rename(tmp_path / "elsewhere")
    (folder / "shade" / "1").symlink_to(tmp_path / "elsewhere")
    reloader.refresh()
    assert served(reloader) == ["shade 1"]
    assert "is a link out of" in reloader.refused["shade/1"]


def test_workers_agree_on_the_first_proposal(tmp_path: Path) -> None:
    first, second = Workers(tmp_path, 0), Workers(tmp_path, 1)
    assert first.agree("shade/1", "int8") == "int8"
    assert second.agree("shade/1", "float32") == "int8"
    assert second.agree("shade/2", "float32") == "float32"
    assert first.agree("shade/2", "int8") == "float32"
    assert Workers(None, 0).agree("shade/2", "int8") == "int8"


def test_the_oldest_agreements_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_state, "AGREEMENTS", 3)
    worker = Workers(tmp_path, 0)
    for version in range(5):
        assert worker.agree(f"shade/{version}", "int8") == "int8"
        for path in tmp_path.glob("agreed-*"):  # a clock may be coarser than this loop
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert len([*tmp_path.glob("agreed-*")]) == 3
    assert worker.agree("shade/2", "float32") == "int8"
    assert worker.agree("shade/1", "float32") == "float32"


def test_a_full_disk_does_not_stop_a_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Workers(tmp_path / "missing", 0)
    assert worker.agree("shade/1", "int8") == "int8"
    worker.publish({"state": "ready"})
    assert [state["state"] for state in worker.states()] == ["ready"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_workers_publish_how_they_run_and_run_alike(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_int8(folder / "shade" / "1")
    workers = [Workers(tmp_path, slot) for slot in (0, 1)]
    for each, faster in zip(workers, (100.0, 0.0), strict=True):  # the second finds float32 faster
        monkeypatch.setattr("serving.inference.models.model.FASTER", faster)
        Reloader(Settings(models=folder), Metrics(), each).refresh()
    running = [state["models"]["shade"]["running"] for state in workers[0].states()]
    assert running == [{"1": {"provider": "CPUExecutionProvider", "precision": "int8"}}] * 2


@pytest.fixture
def app(folder: Path) -> Flask:
    return create_app(Settings(models=folder))


@pytest.fixture
def service(app: Flask) -> Service:
    found = app.extensions[SERVICE]
    assert isinstance(found, Service)
    return found


@pytest.fixture(params=["Flask", "front"])
def client(app: Flask, request: pytest.FixtureRequest) -> FlaskClient | Client:
    return app.test_client() if request.param == "Flask" else Client(app)


def ask(client: FlaskClient, query: str = "", request_id: str | None = None) -> int:
    headers = {"X-Request-ID": request_id} if request_id else {}
    answer = client.post(
        f"/predict/shade{query}", data=DARK, content_type="image/png", headers=headers
    )
    assert answer.json is not None
    assert answer.status_code == 200, answer.json
    return int(answer.json["version"])


def test_a_label_selects_a_version(client: FlaskClient, service: Service, folder: Path) -> None:
    publish(folder, version=2)
    route(folder, {"labels": {"stable": 1}})
    service.reloader.refresh()
    assert (ask(client), ask(client, "?version=stable")) == (2, 1)


def test_the_canary_gets_its_share_and_each_id_the_same_version(
    client: FlaskClient, service: Service, folder: Path
) -> None:
    publish(folder, version=2)
    route(folder, {"default": 1, "canary": {"version": 2, "share": 0.3}})
    service.reloader.refresh()
    ids = [f"id-{i}" for i in range(100)]
    chosen = [ask(client, request_id=each) for each in ids]
    assert 15 <= chosen.count(2) <= 45
    assert chosen == [ask(client, request_id=each) for each in ids]
    assert {ask(client, "?version=1", request_id=each) for each in ids} == {1}
    described = client.get("/models/shade").json
    assert described is not None
    assert described["canary"] == {"version": 2, "share": 0.3}


def test_a_form_that_names_the_model_can_get_the_canary(
    client: FlaskClient, service: Service, folder: Path
) -> None:
    publish(folder, version=2)
    route(folder, {"default": 1, "canary": {"version": 2, "share": 1}})
    service.reloader.refresh()
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nshade\r\n'
    form += b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    answer = client.post(
        "/predict",
        data=form + DARK + b"\r\n--b--\r\n",
        content_type="multipart/form-data; boundary=b",
    )
    assert answer.json is not None
    assert answer.json["version"] == 2


def test_refused_versions_are_described(client: FlaskClient, service: Service, folder: Path) -> None:
    truncate(publish(folder, version=2))
    (folder / "routing.json").write_text("[]")
    service.reloader.refresh()
    listed = client.get("/models").json
    assert listed is not None
    assert listed["models"][0]["refused"].keys() == {"shade/2"}
    (worker,) = listed["workers"]
    assert worker["refused"] == dict(service.reloader.refused)
    assert worker["refused"]["routing.json"] == "routing.json is []. Expected an object."


def test_no_request_fails_while_versions_are_published_and_removed(app: Flask, folder: Path) -> None:
    service, client = app.extensions[SERVICE], Client(app)
    stop, seen = threading.Event(), []

    def hammer() -> None:
        while not stop.is_set():
            seen.append(ask(client))  # type: ignore[arg-type]

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        publish(folder, version=2)
        service.reloader.refresh()
        shutil.rmtree(folder / "shade" / "2")
        service.reloader.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) <= {1, 2}
    page = service.metrics.page().decode()
    assert value(page, "convserve_requests_total", status="200") == len(seen)
    assert labels(page, "convserve_model_info", "version") == {"1"}


def test_a_version_is_freed_after_its_last_request(app: Flask, folder: Path) -> None:
    service: Service = app.extensions[SERVICE]
    publish(folder, version=2)
    service.reloader.refresh()
    client = Client(app)
    assert ask(client) == 2  # type: ignore[arg-type]
    retired = weakref.ref(service.repository.get("shade", 2))
    service.pipeline.batcher.running = 1  # a long inference takes the only lane
    late = threading.Thread(target=lambda: seen.append(ask(client)))  # type: ignore[arg-type]
    seen: list[int] = []
    late.start()
    until(lambda: bool(service.pipeline.batcher._waiting))
    shutil.rmtree(folder / "shade" / "2")
    service.reloader.refresh()
    gc.collect()
    assert retired() is not None
    batcher = service.pipeline.batcher
    batcher.running = 0
    service.loop.run(run_next(service))
    late.join()
    assert seen == [2]
    until(lambda: gc.collect() >= 0 and retired() is None)


def test_probes_and_predictions_are_answered_while_a_version_is_loaded(
    app: Flask, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Service = app.extensions[SERVICE]
    loading, resume, load = threading.Event(), threading.Event(), service.reloader._load

    def slowly(key: str, files: Fingerprint) -> Model:
        loading.set()
        assert resume.wait(60)
        return load(key, files)

    monkeypatch.setattr(service.reloader, "_load", slowly)
    publish(folder, version=2)
    client = Client(app)
    watch = asyncio.run_coroutine_threadsafe(service.reloader.watch(), service.loop._running())
    service.loop._running().call_soon_threadsafe(service.reloader.request_refresh)
    assert loading.wait(60)
    assert client.get("/readyz").status_code == 200
    assert ask(client) == 1  # type: ignore[arg-type]
    listed = client.get("/models").json
    assert listed is not None
    assert listed["workers"][0]["state"] == "loading"
    resume.set()
    until(lambda: served(service.reloader) == ["shade 1", "shade 2"])
    watch.cancel()


async def run_next(service: Service) -> None:
    service.pipeline.batcher._run_next(asyncio.get_running_loop())


def test_a_start_without_a_sound_version_fails(folder: Path) -> None:
    truncate(folder / "shade" / "1")
    with pytest.raises(ModelError, match="cannot be loaded by onnxruntime"):
        create_app(Settings(models=folder))
