import numpy as np
import pytest

from training.modelling.schedules import Triangle


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.4), (10, 1.2), (20, 2.0), (60, 1.1), (100, 0.2), (150, 0.0)]
)
def test_a_triangle_goes_up_and_down(step: int, rate: float) -> None:
    triangle = Triangle(2.0, 100, rise=0.2, start=0.2, end=0.1)
    assert np.asarray(triangle(step)) == pytest.approx(rate, rel=1e-5)
