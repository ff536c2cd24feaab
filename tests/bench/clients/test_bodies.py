import io

from PIL import Image

from bench.clients import bodies
from bench.rig.service import newest


def test_a_photograph_is_reproducible() -> None:
    (path, *_) = sorted((newest("cats_vs_dogs") / "golden").glob("*.png"))
    assert bodies.photograph(path) == bodies.photograph(path)
    with Image.open(io.BytesIO(bodies.photograph(path))) as image:
        assert (image.format, image.size) == ("JPEG", bodies.PHOTO)


def test_each_form_begins_with_another_image() -> None:
    forms = bodies.forms([b"one", b"two", b"three"], 2)
    pairs = [[b"one", b"two"], [b"two", b"three"], [b"three", b"one"]]
    assert forms.files == [bodies.form(pair) for pair in pairs]
    assert (forms.images, forms.content_type) == (2, bodies.FORM)
