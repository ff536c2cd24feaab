import pytest

from bench.rig import environment


def test_missing_programs_and_packages_are_named_before_anything_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as ended:
        environment.require(programs=["wrk"], packages=["flask", "no_such_package"])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert "'wrk' is not on PATH" in text
    assert "'no_such_package' is not installed" in text
    assert "'flask'" not in text
