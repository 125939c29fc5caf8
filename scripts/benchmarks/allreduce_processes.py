"""The processes of one way to all-reduce (`allreduce_process.py`), as the benchmarks drive them."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROCESS = Path(__file__).with_name("allreduce_process.py")


class Processes:
    """One process per rank: `commands` are what comes before the script's name, `places` what each is told first."""

    def __init__(
        self, name: str, commands: Sequence[list[str]], places: Sequence[dict[str, Any]], stack: contextlib.ExitStack
    ) -> None:
        self.name = name
        self._processes = []
        for command, place in zip(commands, places, strict=True):
            process = subprocess.Popen(
                [*command, str(PROCESS), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            self._processes.append(process)
            self._tell(process, place)
        self._hear_all()
        for process in self._processes:
            self._tell(process, {"all_can_be_reached": True})
        self._hear_all()

    def run(self, num_bytes: int, calls: int) -> tuple[list[float], list[float]]:
        """Measure a block; returns the time of each call, that of the slowest process, and every process's processor
        time per call, in seconds."""
        for process in self._processes:
            self._tell(process, {"bytes": num_bytes, "calls": calls})
        reports = self._hear_all()
        times_s = [max(times) for times in zip(*(report["times_s"] for report in reports), strict=True)]
        return times_s, [report["cpu_s"] for report in reports]

    @staticmethod
    def _tell(process: Any, task: dict[str, Any]) -> None:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()

    def _hear_all(self) -> list[dict[str, Any]]:
        lines = [process.stdout.readline() for process in self._processes]
        if not all(lines):
            raise SystemExit(f"a process of {self.name} ended")
        return [json.loads(line) for line in lines]
