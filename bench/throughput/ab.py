"""Compare the service of this checkout with the service of another one, on the same models.

Both services run all the time and take turns, in rounds: closed loops of keep-alive clients with
one image a request. Prints the median requests per second of each, and their ratios.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.clients import bodies
from bench.clients.wrk import closed
from bench.reporting import promises
from bench.reporting.figures import in_turn, median, number, ratios, table
from bench.rig.environment import require
from bench.rig.service import WORKERS, Server, convserve, newest, only
from bench.throughput.serving import PAUSE, WARM_SECONDS, show

THIS, OTHER = "this", "other"


def requests_per_second(server: Server, model: str, clients: int, seconds: float) -> float:
    """Run a closed loop; return NaN if a request failed."""
    time.sleep(PAUSE)
    sent, url = bodies.single(bodies.files(model)), server.url(f"/predict/{model}")
    speed = closed(url, sent, clients=clients, seconds=seconds).speed
    show(f"{model}, {clients} clients, port {server.port}: {speed:.1f} requests/s")
    return speed


def measure(
    servers: Mapping[str, Server], model: str, clients: int, rounds: int, seconds: float
) -> list[str]:
    """Let both services take turns; return a row of the table."""
    for server in servers.values():
        requests_per_second(server, model, clients, WARM_SECONDS)
    ways = {n: partial(requests_per_second, s, model, clients, seconds) for n, s in servers.items()}
    found = in_turn(ways, rounds)
    this, other = median(found[THIS]), median(found[OTHER])
    row = [f"`{model}`, {clients} clients", number(this), number(other), f"{this / other:.3f}"]
    return [*row, ratios(found[THIS], found[OTHER])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a cell is void."""
    parser = promises.parser(
        "throughput.ab",
        __doc__,
        None,
        seconds=(4.0, "length of one window"),
        rounds=(5, "rounds in which the services take turns"),
        models=(bodies.NAMES, "models to serve"),
        clients=([8, 32], "numbers of clients"),
    )
    parser.add_argument("--other", type=Path, required=True, metavar="DIR", help="its checkout")
    options = parser.parse_args(arguments)
    if not (options.other / "serving").is_dir():
        parser.error(f"{options.other} is not a checkout: it has no folder 'serving'.")
    require(programs=["wrk"])
    with (
        only([newest(name) for name in options.models]) as models,
        convserve(models, workers=WORKERS) as this,
        convserve(models, (), options.other.resolve(), workers=WORKERS) as other,
    ):
        rows = [
            measure({THIS: this, OTHER: other}, model, clients, options.rounds, options.seconds)
            for model in options.models
            for clients in options.clients
        ]
    print(table(["Load", THIS, OTHER, "this ÷ other", "by round (least–most)"], rows))
    return 1 if any("void" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
