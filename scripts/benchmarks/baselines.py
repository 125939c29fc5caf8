"""What Heliostat is timed against, every run in fresh processes that leave nothing behind.

    python scripts/benchmarks/baselines.py [--models chapter dense256 ...] [--baselines keras ...] [--seconds 3]

keras, keras_jit: plain Keras 3 `fit`, one process, two threads, `jit_compile` off and on.
mirrored_custom: `MultiWorkerMirroredStrategy`, two processes of one thread, RING, a hand-written Keras 3 loop.
mirrored_tf_keras: the same with `fit` of legacy tf_keras, which must be installed for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from models import WORKLOADS  # type: ignore[import-not-found]

PROCESSES_OF = {"keras": 1, "keras_jit": 1, "mirrored_custom": 2, "mirrored_tf_keras": 2}
BASELINES = tuple(PROCESSES_OF)
# Imports, traces and compilation of the largest model on a busy machine, before the timed part.
START_LIMIT_S = 180.0
POLL_S = 0.05


class BaselineError(RuntimeError):
    """A baseline's process failed, hung or printed no result."""


def run_baseline(name: str, model_name: str, seconds: float) -> dict[str, Any]:
    """Time one baseline on one model for about `seconds` after its warm-up.

    Returns `baseline`, `model`, `steps_per_s`, `samples_per_s` (global), `steps`, `seconds`. Raises BaselineError.
    """
    commands = _commands(name, model_name, seconds)
    found = timed(commands, f"{name} on {model_name}", limit_s=START_LIMIT_S + 10 * seconds)
    return {"baseline": name, "model": model_name, **found}


def timed(commands: Iterable[Sequence[str]], what: str, *, limit_s: float) -> dict[str, Any]:
    """Run processes at the same time; the result is the last line of the first one that is a `StepClock.report`.

    Raises BaselineError, which begins with `what` and has the end of the processes' messages, when one fails, none has
    a result or `limit_s` seconds are over; whatever happens, no process is left.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baseline-")))
        processes = []
        for rank, command in enumerate(commands):
            log = stack.enter_context(open(folder / f"rank{rank}", "w+b"))
            processes.append(stack.enter_context(_process(command, log)))
        _wait(processes, limit_s, lambda: f"{what}: {_tail(folder)}")
        lines = (folder / "rank0").read_text(errors="replace").splitlines()
    results = [line for line in lines if line.startswith('{"steps_per_s"')]
    if not results:
        raise BaselineError(f"{what} printed no result, its last lines: {lines[-5:]}")
    found: dict[str, Any] = json.loads(results[-1])
    return found


def _commands(name: str, model_name: str, seconds: float) -> Iterator[list[str]]:
    script = str(Path(__file__).with_name("baseline_process.py"))
    command = [sys.executable, script, name, model_name, "--seconds", str(seconds)]
    if PROCESSES_OF[name] == 1:
        yield command
        return
    addresses = _free_addresses(PROCESSES_OF[name])
    for rank in range(len(addresses)):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        yield [*command, "--tf-config", json.dumps(config)]


def _free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets]


@contextlib.contextmanager
def _process(command: Sequence[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: its threads and children die with it.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(processes: list[subprocess.Popen[bytes]], limit_s: float, describe: Any) -> None:
    """Return when all have ended well; a process that fails ends the wait at once, as its peers would hang."""
    deadline = time.monotonic() + limit_s
    while True:
        codes = [process.poll() for process in processes]
        if failed := [(rank, code) for rank, code in enumerate(codes) if code]:
            raise BaselineError(f"Process {failed[0][0]} ended with status {failed[0][1]}; {describe()}")
        if None not in codes:
            return
        if time.monotonic() > deadline:
            raise BaselineError(f"No result after {limit_s:.0f} s; {describe()}")
        time.sleep(POLL_S)


def _tail(folder: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in sorted(folder.iterdir()))


def main() -> None:
    """Time baselines one after another and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(WORKLOADS), default=tuple(WORKLOADS))
    parser.add_argument("--baselines", nargs="+", choices=BASELINES, default=BASELINES)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    for model_name in arguments.models:
        for name in arguments.baselines:
            print(json.dumps(run_baseline(name, model_name, arguments.seconds)), flush=True)


if __name__ == "__main__":
    main()
