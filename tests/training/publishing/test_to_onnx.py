import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from tests.training import tiny
from training.errors import ExportMismatch, PublishFailed
from training.evaluation.calibration import softmax
from training.evaluation.scoring import probabilities
from training.modelling.network import build
from training.publishing import to_onnx


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return to_onnx.with_probabilities(build(tiny.RECIPE, 2), temperature=1.5)


@pytest.fixture(scope="module")
def graph(model: keras.Model) -> onnx.ModelProto:
    return to_onnx.to_onnx(model, to_onnx.properties({"name": "brightness", "labels": ["dark"]}))


@pytest.fixture
def file(graph: onnx.ModelProto, tmp_path: Path) -> Path:
    onnx.save(graph, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def dimensions(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_the_graph_has_the_contracts_one_input_and_one_output(graph: onnx.ModelProto) -> None:
    (image,), (answer,) = graph.graph.input, graph.graph.output
    assert (image.name, dimensions(image)) == ("image", ["N", 8, 8, 3])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (answer.name, dimensions(answer)) == ("probabilities", ["N", 2])
    assert answer.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_metadata_hold_strings_and_json(graph: onnx.ModelProto) -> None:
    held = {entry.key: entry.value for entry in graph.metadata_props}
    assert held == {"name": "brightness", "labels": '["dark"]'}


def test_the_file_answers_as_the_network_does(model: keras.Model, file: Path) -> None:
    assert to_onnx.compare(model, file, tiny.split(256, 4).images) < 1e-5


def test_the_rows_of_the_answer_sum_to_one_for_any_number_of_images(file: Path) -> None:
    for count in (1, 7, 300):
        answers = probabilities(file, tiny.split(count, 4).images)
        assert answers.shape == (count, 2)
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_a_file_of_another_network_is_refused(file: Path) -> None:
    keras.utils.set_random_seed(2)
    other = to_onnx.with_probabilities(build(tiny.RECIPE, 2), temperature=1)
    with pytest.raises(ExportMismatch, match=r"differs from the network by .*; allowed is 1e-04"):
        to_onnx.compare(other, file, tiny.split(256, 4).images)


def test_a_comparison_on_few_images_is_refused(model: keras.Model, file: Path) -> None:
    with pytest.raises(ExportMismatch, match="at least 256 images, not on 10"):
        to_onnx.compare(model, file, tiny.split(10, 4).images)


@pytest.mark.parametrize("temperature", [1, 3, 0.5])
def test_the_temperature_is_inside_the_graph(temperature: float) -> None:
    keras.utils.set_random_seed(3)
    network = build(tiny.RECIPE, 2)
    network.layers[-1].kernel.assign(20 * network.layers[-1].kernel)  # so that some are sure
    images = tiny.split(64, 4).images
    logits = np.asarray(network(images))
    answers = np.asarray(to_onnx.with_probabilities(network, temperature)(images))
    scaled = np.asarray(logits / temperature, np.float32)
    np.testing.assert_allclose(answers, softmax(scaled), atol=1e-6)
    np.testing.assert_array_equal(answers.argmax(axis=1), logits.argmax(axis=1))


def test_versions_count_up_from_the_highest(tmp_path: Path) -> None:
    assert to_onnx.next_version(tmp_path, "digits") == 1
    for name in ("1", "10", ".11.partial-1", "notes"):
        (tmp_path / "digits" / name).mkdir(parents=True)
    assert to_onnx.next_version(tmp_path, "digits") == 11


def test_a_publication_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with to_onnx.publication(tmp_path, "digits", 1) as folder:
        (folder / "model.onnx").write_bytes(b"graph")
        assert not (tmp_path / "digits" / "1").exists()
    assert (tmp_path / "digits/1/model.onnx").read_bytes() == b"graph"


def test_a_publication_tells_the_sums_of_its_files(tmp_path: Path) -> None:
    with to_onnx.publication(tmp_path, "digits", 1) as folder:
        (folder / "golden").mkdir()
        (folder / "golden" / "7-0.png").write_bytes(b"seven")
        (folder / "model.onnx").write_bytes(b"graph")
    published = tmp_path / "digits" / "1"
    files = ["golden/7-0.png", "model.onnx"]
    assert (published / "SHA256SUMS").read_text() == "".join(
        f"{hashlib.sha256((published / file).read_bytes()).hexdigest()}  {file}\n" for file in files
    )


def test_a_failed_publication_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with to_onnx.publication(tmp_path, "digits", 1) as folder:
            (folder / "model.onnx").write_bytes(b"graph")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_published_version_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    with (
        pytest.raises(PublishFailed, match="a published version never changes"),
        to_onnx.publication(tmp_path, "digits", 1),
    ):
        pass
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]


def test_publishers_of_one_model_take_turns_and_each_gets_its_own_version(tmp_path: Path) -> None:
    def publish(_: int) -> int:
        with (
            to_onnx.turn(tmp_path, "digits") as version,
            to_onnx.publication(tmp_path, "digits", version) as folder,
        ):
            (folder / "model.onnx").write_bytes(b"graph")
        return version

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(publish, range(8))) == list(range(1, 9))
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_what_a_killed_publisher_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "digits/.1.partial-17/golden").mkdir(parents=True)
    (tmp_path / ".digits.lock").touch()
    with to_onnx.turn(tmp_path, "digits") as version:
        assert version == 1
        assert list((tmp_path / "digits").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "digits").write_bytes(b"a file where a folder should be")
    with (
        pytest.raises(PublishFailed, match="could not be written"),
        to_onnx.publication(tmp_path, "digits", 1),
    ):
        pass
