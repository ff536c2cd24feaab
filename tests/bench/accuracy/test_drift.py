"""Alerts on two days are assembled and judged."""

import numpy as np
import pytest

from bench.accuracy import days, drift, panels, timeline
from bench.accuracy.timeline import Alert, Episode
from bench.rig.prometheus import Series

SHIFT = Alert("ConvserveClassesShifted", "warning", "1h")
SLOW = Alert("ConvserveSlow", "warning", "5m")


def series(alert: Alert, state: str, *times: float, instance: str = "a") -> Series:
    labels = {"alertname": alert.name, "severity": alert.severity, "window": alert.window}
    labels |= {"alertstate": state, "instance": instance}
    return Series(labels, [(at, 1.0) for at in times])


def test_samples_of_alerts_are_assembled_to_episodes() -> None:
    alerts = [
        series(SHIFT, "pending", 1),
        series(SHIFT, "firing", 2, 3),
        series(SLOW, "pending", 2),
        series(SLOW, "pending", 5),
    ]
    assert timeline.episodes(alerts, step=1, end=5) == [
        Episode(SHIFT, 1, 2, 4),
        Episode(SLOW, 2, None, 3),
        Episode(SLOW, 5),
    ]


def test_a_firing_instance_of_an_alert_prevails() -> None:
    alerts = [
        series(SHIFT, state, 1, instance=instance)
        for instance, state in (("a", "pending"), ("b", "firing"), ("c", "pending"))
    ]
    assert timeline.episodes(alerts, step=1, end=9) == [Episode(SHIFT, 1, 1, 2)]


def test_a_time_is_shown_by_the_clock_of_its_day() -> None:
    assert timeline.on_the_clock(90, 180) == "day 1, 12:00"
    assert timeline.on_the_clock(181.25, 180) == "day 2, 00:10"


def seen(*episodes: Episode) -> drift.Seen:
    series = {expression: [(99.0, 0.5), (199.0, 0.7)] for expression in drift.ROWS.values()}
    return drift.Seen(0.0, 100.0, series, episodes, 10, 3, [], "")


NEEDED = [Episode(Alert(name, "critical", "1h"), 110, 120) for name in drift.NEEDED]


def test_alerts_on_the_shifted_day_alone_keep_the_promises() -> None:
    assert all(each.kept for each in drift.judge(seen(*NEEDED, Episode(SLOW, 1, 2, 3))))
    assert seen().day_ends(panels.ACCURACY) == ("0.500", "0.700")


@pytest.mark.parametrize(
    "episodes",
    [
        pytest.param(NEEDED[1:], id="one does not fire"),
        pytest.param([*NEEDED, Episode(SHIFT, 10, 20, 30)], id="one fires on the normal day"),
        pytest.param([*NEEDED[1:], Episode(NEEDED[0].alert, 10, 20)], id="one fires all the time"),
    ],
)
def test_other_alerts_break_a_promise(episodes: list[Episode]) -> None:
    assert not all(each.kept for each in drift.judge(seen(*episodes)))


def test_the_promised_alerts_are_among_the_shipped_ones() -> None:
    shipped = (drift.RULES / "alerts.yml").read_text("utf-8")
    assert all(f"alert: {name}\n" in shipped for name in drift.QUALITY)


def test_a_shifted_picture_differs_and_has_the_same_size() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for changed in (days.noisy(picture, np.random.default_rng(2)), days.blurred(picture)):
        assert (changed.shape, changed.dtype) == (picture.shape, picture.dtype)
        assert (changed != picture).any()
