"""What benchmarks share: processes of their own, rounds in turn, a trainer for a while, results that say their origin.

A benchmark never times in a process that another one could disturb: `child` runs one of the scripts here, `together`
several at the same time, each in a session of its own, of which nothing is left whatever happens. What a process has
found is the last JSON object with the key that is asked for among what it printed, since libraries and Ray print, too.
`turns` gives every round another order. `training` is a `Trainer` with its dataset in a folder that is gone afterwards.
`finish` prints what was found and keeps it, with host, versions and commit, where `render.py` makes the page of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    from heliostat.trainer import Result, Trainer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "docs" / "explanation" / "benchmarks"
PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "ray", "pyarrow", "numpy")
# No GPU, and no words of TensorFlow's.
QUIET = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
# No run lasts so long: something ends it.
ENDLESS_EPOCHS = 1_000_000
LIMIT_S, POLL_S, PEAK_EVERY_S = 600.0, 0.05, 0.002

Found = dict[str, Any]
"""What was found, as JSON has it."""


class BenchmarkError(RuntimeError):
    """A process of a benchmark failed, hung or printed no result."""


# -- processes --------------------------------------------------------------------------------------------------------


def child(
    script: str,
    *arguments: object,
    key: str,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> Found:
    """Run a script of this folder in a fresh process; returns the last object with `key` that it prints."""
    command = [python, str(HERE / script), *map(str, arguments)]
    return together([command], key, script, variables=variables, limit_s=limit_s)


def together(
    commands: Sequence[Sequence[str]],
    key: str,
    what: str,
    *,
    variables: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> Found:
    """Run processes at the same time; returns the last object with `key` that the first one prints.

    Raises BenchmarkError, which begins with `what` and has the end of what they said, when one fails, the first one
    has no result or `limit_s` seconds are over; no process is left.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heliostat-bench-")))
        logs = [folder / f"process {number}" for number in range(len(commands))]
        processes = [
            stack.enter_context(_process(command, log, variables or {}))
            for command, log in zip(commands, logs, strict=True)
        ]

        def said() -> str:
            return f"{what}: " + "\n".join(f"{log.name}: {log.read_text(errors='replace')[-3000:]}" for log in logs)

        until_s = time.monotonic() + limit_s
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            if time.monotonic() > until_s:
                raise BenchmarkError(f"No result after {limit_s:.0f} s; {said()}")
            time.sleep(POLL_S)
        for number, code in enumerate(codes):
            if code:  # at once, as its peers would hang
                raise BenchmarkError(f"Process {number} ended with status {code}; {said()}")
        return document(logs[0].read_text(errors="replace"), key)


@contextlib.contextmanager
def _process(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: its threads and children die with it.
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | QUIET | dict(variables),
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def document(printed: str, key: str) -> Found:
    """The last JSON object with `key` among what was printed; raises BenchmarkError without one."""
    found, at, decoder = None, printed.find("{"), json.JSONDecoder()
    while at >= 0:
        try:
            value, end = decoder.raw_decode(printed, at)
        except json.JSONDecodeError:
            end = at + 1
        else:
            found = value if key in value else found
        at = printed.find("{", end)
    if found is None:
        raise BenchmarkError(f'No JSON with "{key}" among what was printed, which ends so:\n{printed[-1000:]}')
    return dict(found)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens to."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def status_bytes(field: str) -> int:
    """A field of this process's ``/proc/self/status``: RssAnon, what it takes for itself, or VmHWM, the peak of all."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{field}:"))


class Watch:
    """Looks at something again and again, from a thread of its own, until it is closed."""

    def __init__(self, look: Callable[[], Any], every_s: float) -> None:
        self.looks: list[tuple[float, Any]] = [(time.time(), look())]
        self._over = threading.Event()

        def watch() -> None:
            while not self._over.wait(every_s):
                self.looks.append((time.time(), look()))

        self._thread = threading.Thread(target=watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()


class Peak(Watch):
    """Follows the largest RssAnon of this process."""

    def __init__(self) -> None:
        super().__init__(lambda: status_bytes("RssAnon"), PEAK_EVERY_S)

    def close(self) -> int:
        """Look no more; returns it, in bytes."""
        super().close()
        return max(num_bytes for _, num_bytes in self.looks)


# -- rounds -----------------------------------------------------------------------------------------------------------


def turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """Names in another order each round: a rotation, every other one backwards."""
    for number in range(rounds):
        turned = [*names[number % len(names) :], *names[: number % len(names)]]
        yield turned[::-1] if number % 2 else turned


def in_turn(names: Sequence[str], rounds: int, measure: Callable[[str], Found]) -> dict[str, list[Found]]:
    """What every name found, by round; said as it comes."""
    found: dict[str, list[Found]] = {name: [] for name in names}
    for order in turns(names, rounds):
        for name in order:
            found[name].append(measure(name))
            print(f"  {name:28} {json.dumps(found[name][-1])[:160]}", file=sys.stderr, flush=True)
    return found


def median(runs: Sequence[Mapping[str, float]], name: str) -> float:
    """Of a figure over runs."""
    return statistics.median(run[name] for run in runs)


def spread(runs: Sequence[Mapping[str, float]], name: str) -> float:
    """(largest - smallest) / median of a figure over runs."""
    values = [run[name] for run in runs]
    return (max(values) - min(values)) / statistics.median(values)


# -- a trainer for a while --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def training(
    build_model: Callable[[], keras.Model], rows: Mapping[str, Any], **settings: Any
) -> Iterator[tuple[Trainer, Path]]:
    """A trainer with one thread per worker, and the dataset of `rows`; their folder, `data.parent`, is gone afterwards.

    Its run folder is ``run`` in there.
    """
    os.environ.update(QUIET)
    import cloudpickle
    from heliostat.data import write_dataset
    from heliostat.trainer import Trainer

    for module in list(sys.modules.values()):
        if Path(getattr(module, "__file__", None) or "/").parent == HERE:
            cloudpickle.register_pickle_by_value(module)  # workers cannot import a script's neighbour
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as name:
        data = write_dataset(Path(name) / "data", rows).path
        with Trainer(build_model, **{"threads_per_worker": 1, "run_dir": Path(name) / "run", **settings}) as trainer:
            yield trainer, data


def lines(path: Path) -> list[Found]:
    """The objects in a file of JSON lines, none without it; a line that a kill has cut short is left out."""
    found = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("\n")]


def epochs_of(result: Result) -> list[Found]:
    """The lines of a run's ``metrics.jsonl``."""
    return lines(result.run_dir / "metrics.jsonl")


def record_of(result: Result) -> Found:
    """A run's ``run.json``."""
    return dict(json.loads((result.run_dir / "run.json").read_text()))


# -- results ----------------------------------------------------------------------------------------------------------


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the result there")
    parser.add_argument("--save", action="store_true", help="keep the result in docs/explanation/benchmarks")
    return parser


def parsed(parser: argparse.ArgumentParser, one: Callable[[argparse.Namespace], Found]) -> argparse.Namespace:
    """The options. In a process that got `--one`, what `one` makes of them is printed, and the process ends."""
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one is not None:
        print(json.dumps(one(chosen)))
        sys.exit()
    return chosen


def finish(chosen: argparse.Namespace, name: str, found: Found) -> None:
    """Print what a benchmark has found so far, and keep it where its options say, with where it comes from."""
    print(json.dumps(found), flush=True)
    for path in filter(None, (chosen.json, RESULTS / f"{name}.json" if chosen.save else None)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"about": about(), **found}, indent=1) + "\n")


def about() -> Found:
    """Command, commit, day, host and versions."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "command": " ".join(["python", f"scripts/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit.strip() + ("+" if changed else ""),
        "day": datetime.now(UTC).strftime("%Y-%m-%d"),
        "host": {"processor": models[0] if models else platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **versions},
    }
