from bench.clients.wrk import Closed
from bench.throughput.contenders import OURS
from bench.throughput.results import FORM, LIMIT, Results


def results() -> Results:
    made = Results("digits")

    def add(server: str, speeds: list[float], load: str = "8", errors: int = 0) -> None:
        for speed in speeds:
            made.cells[load, server].append(Closed(speed, 2.0, 9.0, errors))

    add("Flask", [100, 50])
    add(OURS, [300, 200])
    add("Broken", [100, 100], errors=1)
    add(LIMIT, [500, 500], load="batch 1")
    add(OURS, [250, 250], load=FORM)
    made.busier |= {load: [0.6, 0.6] for load in ("8", FORM)}
    return made


def test_the_tables_show_medians_ratios_and_void_cells() -> None:
    text = results().markdown()
    assert f"| {OURS} | 250 · 9 |" in text
    assert "| Flask | 3.50 (3.00–4.00) |" in text
    assert "| Broken | void · void |" in text
    assert f"| Convserve, {FORM} | 250 | 0.50 (0.50–0.50) of batch 1 |" in text
    assert "| busier : other | 60% : 40% | 60% : 40% |" in text
    assert results().markdown(closed_loops_only=True) in text


def test_a_cell_with_errors_is_named() -> None:
    assert set(results().void()) == {"digits, 8, Broken: 1 errors"}


def test_the_capacity_is_the_highest_median_of_a_closed_loop() -> None:
    found = results()
    found.cells["32", OURS].append(Closed(400, 2.0, 9.0))
    assert found.capacity(OURS) == 400
    assert found.capacity("Broken") != found.capacity("Broken")
