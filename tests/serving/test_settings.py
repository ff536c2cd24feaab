"""Settings are read strictly, except for what Kubernetes injects."""

from pathlib import Path

import pytest

from serving.errors import SettingsError
from serving.settings import Settings, rows, table


def test_an_environment_without_settings_means_the_defaults() -> None:
    assert Settings.from_environ({"PATH": "/bin"}) == Settings()


def test_values_are_read_in_their_type() -> None:
    settings = Settings.from_environ(
        {"CONVSERVE_MODELS": "/m", "CONVSERVE_WORKERS": "3", "CONVSERVE_DRAIN_SECONDS": "0.5"}
    )
    assert (settings.models, settings.workers, settings.drain_seconds) == (Path("/m"), 3, 0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CONVSERVE_THREDS", "4", "Did you mean CONVSERVE_THREADS?"),
        ("CONVSERVE_PORT", "8000", "No setting named CONVSERVE_PORT"),
        ("CONVSERVE_THREADS", "many", "CONVSERVE_THREADS is 'many'. Expected a whole number."),
        ("CONVSERVE_THREADS", "4.5", "Expected a whole number."),
        ("CONVSERVE_THREADS", "", "Expected a whole number."),
        ("CONVSERVE_THREADS", "0", "CONVSERVE_THREADS is 0. Expected a finite number, at least 1."),
        ("CONVSERVE_WORKERS", "1000", "Expected a finite number, at least 0, at most 256."),
        ("CONVSERVE_DRAIN_SECONDS", "nan", "Expected a finite number, at least 0."),
        ("CONVSERVE_GRACE_SECONDS", "inf", "Expected a finite number"),
        ("CONVSERVE_BIND", " ", "CONVSERVE_BIND is empty."),
        ("CONVSERVE_BIND", "foo:bar", "CONVSERVE_BIND is 'foo:bar'. Expected <host>:<port>,"),
        ("CONVSERVE_BIND", "8000", "Expected <host>:<port>, [<IPv6>]:<port> or unix:<path>."),
        ("CONVSERVE_BIND", "localhost:65536", "Expected <host>:<port>"),
        ("CONVSERVE_LOG_LEVEL", "loud", "Expected debug, info, warning or error."),
        ("CONVSERVE_DEVICE", "gpu", "CONVSERVE_DEVICE is 'gpu'. Expected cpu, cuda or auto."),
        ("CONVSERVE_PRECISION", "fp16", "Expected float32, int8 or auto."),
        ("CONVSERVE_ARENA", "", "CONVSERVE_ARENA is empty."),
        (
            "CONVSERVE_FEEDBACK_URL",
            "mysql://db",
            "CONVSERVE_FEEDBACK_URL begins with 'mysql://db'.",
        ),
        (
            "CONVSERVE_FEEDBACK_KEYS",
            "k" * 16 + ",short",
            "holds a key of 5 characters. Expected at",
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_a_sentence(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environ({name: value})
    assert message in str(refusal.value)


@pytest.mark.parametrize("bind", ["localhost:0", "0.0.0.0:8000", "[::]:80", "unix:/run/c.sock"])
def test_an_address_of_any_kind_is_accepted(bind: str) -> None:
    assert Settings.from_environ({"CONVSERVE_BIND": bind}).bind == bind


def test_spaces_around_a_value_are_ignored() -> None:
    assert Settings.from_environ({"CONVSERVE_LOG_LEVEL": "info "}).log_level == "info"


@pytest.mark.parametrize(
    "name",
    [
        "CONVSERVE_SERVICE_HOST",
        "CONVSERVE_SERVICE_PORT",
        "CONVSERVE_SERVICE_PORT_HTTP",
        "CONVSERVE_PORT_8000_TCP",
        "CONVSERVE_PORT_8000_TCP_ADDR",
        "CONVSERVE_CANARY_SERVICE_HOST",
    ],
)
def test_what_kubernetes_injects_is_ignored(name: str) -> None:
    assert Settings.from_environ({name: "10.0.0.1"}) == Settings()


def test_the_port_of_a_kubernetes_service_is_ignored() -> None:
    assert Settings.from_environ({"CONVSERVE_PORT": "tcp://10.0.0.1:8000"}) == Settings()


def test_no_setting_has_a_name_that_kubernetes_may_inject() -> None:
    for row in rows():
        with pytest.raises(SettingsError):
            Settings.from_environ({row.name + "_": "tcp://"})


def test_the_table_has_a_sentence_for_every_setting() -> None:
    for row in rows():
        assert row.sentence.endswith(".")
        assert f"| `{row.name}` | `{row.default}` | {row.sentence} |" in table()
