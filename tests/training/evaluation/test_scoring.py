import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from training.data.datasets import Upload
from training.errors import ServiceFailed
from training.evaluation import scoring
from training.evaluation.scoring import Score


@contextmanager
def service(status: int = 200, *, body: bytes | None = None) -> Iterator[tuple[str, list[str]]]:
    """Run a server that answers with the body as the label; yield its address and the requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked.append(f"{self.path} {self.headers['Content-Type']}")
            label = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = body or json.dumps({"predictions": [{"label": label}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def uploads(*labels: str) -> list[Upload]:
    """Return files with the content "cat", whatever their label."""
    return [Upload(f"{n}.png", b"cat", "image/png", label) for n, label in enumerate(labels)]


def digit() -> Upload:
    picture = np.zeros((28, 28), np.uint8)
    picture[4:24, 12:16] = 255
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "PNG")
    return Upload("1.png", target.getvalue(), "image/png", "1")


def test_a_score_is_shown_as_a_count_and_a_share() -> None:
    assert str(Score(9_924, 10_000)) == "9,924 of 10,000 correct (99.24%)"


def test_the_best_class_is_compared_with_the_label() -> None:
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    assert scoring.score(answers, np.array([0, 1, 1])) == Score(2, 3)


def test_every_file_is_posted_and_its_answer_counted() -> None:
    with service() as (url, asked):
        result = scoring.over_http(url, "pets", uploads("cat", "dog", "cat"))
    assert result == Score(2, 3)
    assert asked == ["/predict/pets image/png"] * 3


def test_a_version_is_requested() -> None:
    with service() as (url, asked):
        scoring.over_http(f"{url}/", "pets", uploads("cat"), version=3)
    assert asked == ["/predict/pets?version=3 image/png"]


def test_an_error_of_the_service_stops_the_evaluation() -> None:
    with (
        service(status=503) as (url, _),
        pytest.raises(ServiceFailed, match=r"answered 503 to 0\.png: \{"),
    ):
        scoring.over_http(url, "pets", uploads("cat"))


def test_an_answer_of_another_service_is_reported() -> None:
    with (
        service(body=b'{"results": []}') as (url, _),
        pytest.raises(ServiceFailed, match="returned no prediction"),
    ):
        scoring.over_http(url, "pets", uploads("cat"))


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with service() as (url, _):
        assert scoring.over_http(url, "pets", uploads("cat")).correct == 1


def test_an_unreachable_service_is_reported() -> None:
    with service() as (url, _):
        pass
    with pytest.raises(ServiceFailed, match="No answer from"):
        scoring.over_http(url, "pets", uploads("cat"))


def test_photographed_digits_are_dark_on_a_large_light_page() -> None:
    sent = list(scoring.photographed([digit()] * 8))
    pages = [np.asarray(Image.open(io.BytesIO(upload.data))) for upload in sent]
    assert {upload.content_type for upload in sent} == {"image/jpeg"}
    assert len({page.shape for page in pages}) > 1
    for page in pages:
        height, width = page.shape
        assert 150 <= height <= 900
        assert width == pytest.approx(height * 4 / 3, abs=1)
        assert np.median(page) > 250
        assert page.min() < 40


def test_photographs_are_deterministic() -> None:
    first, second = (list(scoring.photographed([digit()], seed=7)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [
        *((9_916, 10_000, 0.98961, 0.99321), (8, 10, 0.49016, 0.94332)),
        *((10, 10, 0.72247, 1.0), (0, 10, 0.0, 0.27753)),
    ],
)
def test_the_confidence_interval_is_wilsons(
    correct: int, images: int, low: float, high: float
) -> None:
    assert Score(correct, images).interval == pytest.approx((low, high), abs=1e-4)
