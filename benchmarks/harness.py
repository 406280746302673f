"""What all benchmarks share: data root, options, timing, memory, intervals and Markdown tables.

    python benchmarks/harness.py            # run every benchmark of QUICK with --quick; `make bench` does this
    python benchmarks/harness.py --list     # name them

Importing it costs nothing beside NumPy; torch is loaded only by the benchmarks themselves.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
FIGURES = ROOT / "docs" / "explanation" / "figures"
#: Benchmarks that take less than about a minute on two CPU cores with --quick, relative to this folder.
QUICK = (
    "speed/betweenness.py",
    "speed/mining.py",
    "speed/report_page.py",
    "accuracy/hierarchies.py",
    "validity/concept_warnings.py",
    "validity/deletion.py",
)

# ---------------------------------------------------------------------- options


def options(
    text: str | None,
    *,
    quick: str | None = None,
    data: Path | None = None,
    seed: int | None = None,
    update_docs: str | None = None,
) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share; each is there only where it has an effect.

    Args:
        text: the docstring of the script, printed by ``--help``.
        quick: what ``--quick`` makes smaller.
        data: default of ``--data``, the folder with the data.
        seed: default of ``--seed``.
        update_docs: file in ``docs/explanation/figures`` that ``--update-docs`` overwrites.

    Returns:
        The parser, to which a script adds options of its own before ``parse``.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=f"smaller: {quick}")
    if data is not None:
        parser.add_argument("--data", type=Path, default=data, help="folder with the data (default: %(default)s)")
    if seed is not None:
        parser.add_argument("--seed", type=int, default=seed, help="default: %(default)s")
    if update_docs is not None:
        parser.add_argument("--update-docs", action="store_true", help=f"overwrite {update_docs} in {FIGURES}")
    return parser


def parse(parser: argparse.ArgumentParser, quick: Mapping[str, Any] | None = None) -> argparse.Namespace:
    """Parse the command line; with ``--quick``, ``quick`` holds the defaults, and options given explicitly win."""
    given = parser.parse_args()
    if quick and given.quick:
        parser.set_defaults(**quick)
        given = parser.parse_args()
    return given


def missing(*paths: Path) -> bool:
    """Whether one of the files or folders is not there, which is then printed."""
    absent = [path for path in paths if not path.exists()]
    if absent:
        print(f"skipped: there is no {', no '.join(map(str, absent))}")
    return bool(absent)


# ---------------------------------------------------------------------- time


@dataclass
class Times:
    """Seconds of repeated runs.

    Attributes:
        wall: wall time of each run.
        processor: processor time of each run, over all threads; on a machine with other work only this compares.
        result: what the last run returned.
    """

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def least(self) -> float:
        return min(self.wall)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    def extend(self, other: Times) -> None:
        self.wall += other.wall
        self.processor += other.processor
        self.result = other.result


def time_in_turn(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warm_up: int = 1,
    settle: Callable[[], object] | None = None,
) -> dict[str, Times]:
    """Time several functions in turn, so that a busy machine slows all of them.

    Args:
        runs: what is timed, by name.
        repeats: number of timed runs of each.
        warm_up: number of rounds before, which are not counted.
        settle: called before and after each run, such as ``torch.cuda.synchronize``.

    Returns:
        The times of each function, run i of all of them from the same round.
    """
    found = {name: Times() for name in runs}
    for number in range(warm_up + repeats):
        for name, run in runs.items():
            if settle:
                settle()
            start, worked = time.perf_counter(), time.process_time()
            found[name].result = run()
            if settle:
                settle()
            if number >= warm_up:
                found[name].wall.append(time.perf_counter() - start)
                found[name].processor.append(time.process_time() - worked)
    return found


def time_runs(
    run: Callable[[], object], repeats: int, *, warm_up: int = 1, settle: Callable[[], object] | None = None
) -> Times:
    """``time_in_turn`` for a single function."""
    return time_in_turn({"": run}, repeats, warm_up=warm_up, settle=settle)[""]


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios of paired seconds, of runs taken in turn."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def cuda_settle(device: str) -> Callable[[], object] | None:
    """What waits for the GPU before a clock is read; None on other devices."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.synchronize


# ---------------------------------------------------------------------- memory


def peak_memory() -> float:
    """Peak memory of this process since it started, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def resident() -> int:
    """Bytes of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Peak:
    """The largest resident size in bytes while it is open, read every 2 ms."""

    def __enter__(self) -> Peak:
        self.bytes, self._open = resident(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while self._open:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()


# ---------------------------------------------------------------------- intervals


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson)."""
    from scipy.stats import binomtest

    found = binomtest(int(count), int(total)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def student(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the 95 % interval of a mean (Student's t); the half is NaN for a single value."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    return mean, stats.t.ppf(0.975, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def bootstrap_rows(owner: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of bootstrap samples of groups.

    Args:
        owner: (N,) number of the group of each row, from 0.
        draws: number of samples.
        seed: of the samples; two statistics of the same samples can be subtracted.

    Yields:
        Indices of the rows of one sample, a group as often as it was drawn.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(owner == group) for group in range(int(owner.max()) + 1)]
    for _ in range(draws):
        yield np.concatenate([members[group] for group in random.integers(len(members), size=len(members))])


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of bootstrap values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


# ---------------------------------------------------------------------- Markdown


def row(cells: Iterable[object]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(heads: Sequence[str], rows: Iterable[Iterable[object]] = ()) -> list[str]:
    """Lines of a Markdown table, without rows only its head."""
    return [row(heads), f"|{'---|' * len(heads)}", *map(row, rows)]


def write_figure(name: str, script: str, lines: Iterable[str]) -> None:
    """Write ``lines`` to ``docs/explanation/figures/NAME.md``, with the script that wrote them."""
    head = f"<!-- written by {Path(script).resolve().relative_to(ROOT).as_posix()} -->"
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.md").write_text("\n".join([head, "", *lines]) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------- make bench


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--list", action="store_true", help="name the quick benchmarks, run nothing")
    given = parser.parse_args()
    failed = []
    for script in QUICK:
        print(f"== benchmarks/{script} --quick", flush=True)
        if given.list:
            continue
        start = time.perf_counter()
        if subprocess.run([sys.executable, str(ROOT / "benchmarks" / script), "--quick"], cwd=ROOT).returncode:
            failed.append(script)
        print(f"   {time.perf_counter() - start:.0f} s\n", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
