"""Does the service hold its load figures? Submits, polls, lists, live streams, downloads, starts, overhead per job.

    PYTHONPATH=. python benchmarks/service.py [--runs 3] [--only http streams downloads starts overhead]

Starts PostgreSQL (fsync on), Redis, an API and a worker of its own for each group of rows; they share the machine with
this load. The worker's engine is a stand-in that waits: starts and overhead are the service's part alone. Prints the
median of the runs beside gate and goal; exits with 1 where a gate is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from service_rows import ROWS, Figure, Size, measured

from api.limits import raise_open_files


def medians(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    """Returns each figure with the median of its values."""
    return [replace(same[0], value=median(figure.value for figure in same)) for same in zip(*runs, strict=True)]


def line(figure: Figure) -> str:
    """Returns a figure as one line of the table."""
    sign = ">=" if figure.rising else "<="
    gate = "none here" if figure.gate is None else f"{sign} {figure.gate:g}"
    goal = "none" if figure.goal is None else f"{figure.goal:g}"
    verdict = "not judged" if figure.gate is None else "MISSED" if figure.missed else "met"
    named = f"{figure.row}, {figure.name}"
    return f"{named:44} {figure.value:10.1f} {figure.unit:3} gate {gate:10} goal {goal:6} {verdict}"


def options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of which the median is judged")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), help="groups of rows")
    parser.add_argument("--requests", type=int, default=2000, help="submits; four times as many polls")
    parser.add_argument("--rows", type=int, default=1_000_000, help="jobs in the table that is listed")
    parser.add_argument("--readers", type=int, default=1000, help="of live streams")
    parser.add_argument("--events", type=int, default=10, help="that each of them is sent, one a second")
    parser.add_argument("--file-bytes", type=int, default=4 * 10**9, help="of the file that is downloaded")
    parser.add_argument("--jobs", type=int, default=20, help="whose wait for an idle worker is measured")
    parser.add_argument("--engine-seconds", type=float, default=60.0, help="of the job whose overhead is measured")
    return parser.parse_args()


def main() -> int:
    """Returns 0 where the gates hold."""
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers that were started end with this process
    raise_open_files(given.readers)
    size = Size(
        requests=given.requests,
        rows=given.rows,
        readers=given.readers,
        events=given.events,
        file_bytes=given.file_bytes,
        jobs=given.jobs,
        engine_seconds=given.engine_seconds,
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}; load before the run {load}; {given.runs} runs")
    figures = medians([measured(given.only, size) for _ in range(given.runs)])
    print("\n".join(line(figure) for figure in figures))
    return 1 if any(figure.missed for figure in figures) else 0


if __name__ == "__main__":
    raise SystemExit(main())
