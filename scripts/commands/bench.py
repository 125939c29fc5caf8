"""``heliostat bench``: how fast a model trains on 1, 2, ... workers here, where the time goes, and what would help.

Also how fast every two workers talk, through the same listeners, handshake and sockets as in a step.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.cluster.links import PairBandwidth, far_slower, shown_rate

from ..errors import ScriptError

if TYPE_CHECKING:
    from rich.table import Table

PARTS = ("input", "compute", "local_sum", "wait", "all_reduce", "apply", "control", "hooks", "rest")
_MOVING = ("local_sum", "all_reduce")
STEPS_PER_EPOCH = 16
_NOTEWORTHY = 0.2
_POOR = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one number of workers reached.

    Attributes:
        workers: how many.
        samples_per_s: rows of the timed epochs over their duration, epochs' ends included.
        step_ms: milliseconds of a step by part (`PARTS`), the mean over workers; "whole" is the time between steps.
        num_weights: trainable numbers of the model.
    """

    workers: int
    samples_per_s: float
    step_ms: Mapping[str, float]
    num_weights: int = 0

    def efficiency(self, alone: Measured) -> float:
        """Rows per second and worker, as a share of those of `alone`."""
        return self.samples_per_s / max(self.workers, 1) / (alone.samples_per_s / max(alone.workers, 1))

    def share(self, *parts: str) -> float:
        """What these parts take of a step, 0 to 1."""
        return sum(self.step_ms[part] for part in parts) / self.step_ms["whole"]

    def transfer_ms(self, links: Sequence[PairBandwidth]) -> float:
        """Milliseconds that an all-reduce of the gradient needs at least over the slowest link; 0 without links.

        Every worker sends and receives 2(P-1)/P of the vector; its float32 numbers have four bytes.
        """
        if not links:
            return 0.0
        moved = 2 * (self.workers - 1) / self.workers * 4 * self.num_weights
        return 1000 * (moved / min(link.bytes_per_s for link in links) + max(link.latency_s for link in links))


def advice(
    found: Sequence[Measured], links: Sequence[PairBandwidth] = (), hosts: Mapping[int, str] | None = None
) -> str:
    """What the largest group's time goes to, and what to change.

    Args:
        found: one or more numbers of workers.
        links: between the workers of the largest group.
        hosts: their machines.
    """
    largest = max(found, key=lambda each: each.workers)
    # Who waits for bytes that a link cannot bring faster waits for the network, not for another worker.
    network_ms = min(largest.step_ms["wait"], max(0.0, largest.transfer_ms(links) - largest.step_ms["all_reduce"]))
    network = network_ms / largest.step_ms["whole"]
    moving, waiting = largest.share(*_MOVING) + network, largest.share("wait") - network
    costs = {
        f"Input-bound: getting rows takes {largest.share('input'):.0%} of a step. Cache what is computed per row "
        "(dataset.cache), or give workers more threads.": largest.share("input"),
        f"Communication-bound: moving and adding gradients takes {moving:.0%} of a step. Raise the "
        f"global batch, or use fewer workers with more devices each.{_about_links(links, hosts or {})}": moving,
        f"Waiting-bound: workers wait for each other or the network for {waiting:.0%} of a step. Look "
        "for a slower or busier machine; more microbatches per worker even small differences out."
        f"{_about_links(links, hosts or {})}": waiting,
        f"Update-bound: the optimizer takes {largest.share('apply'):.0%} of a step. A larger global batch makes "
        "fewer updates per row.": largest.share("apply"),
        f"Bound by what happens between steps ({largest.share('control', 'hooks', 'rest'):.0%}): make callbacks with "
        "batch hooks cheaper, or the global batch larger.": largest.share("control", "hooks", "rest"),
    }
    text, share = max(costs.items(), key=lambda item: item[1])
    efficiency = largest.efficiency(min(found, key=lambda each: each.workers))
    if share < _NOTEWORTHY and efficiency < _POOR:
        return (
            f"Compute-bound, at an efficiency of {efficiency:.0%}: the gradient takes longer with more workers, so "
            "they share cores or memory with each other or with other programs. Give each its own."
        )
    if share < _NOTEWORTHY:
        return (
            f"Compute-bound: {largest.share('compute'):.0%} of a step is the gradient. More workers or faster devices "
            "will be used well."
        )
    return text


def _about_links(links: Sequence[PairBandwidth], hosts: Mapping[int, str]) -> str:
    """Which link is far slower than the others, or how fast they are."""
    if not links:
        return ""
    if (found := far_slower(links)) is not None:
        slowest, median = found
        one, other = (f"worker {worker} ({hosts.get(worker, '?')})" for worker in slowest.workers)
        return (
            f" The link between {one} and {other} moves {shown_rate(slowest.bytes_per_s)}, half of all links move "
            f"{shown_rate(median)} or more: look at the network of these machines."
        )
    return f" The slowest link moves {shown_rate(min(link.bytes_per_s for link in links))} each way."


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All that was measured.

    Attributes:
        measured: by number of workers.
        links: between the workers of the largest number.
        hosts: their machines, by the worker's number.
    """

    measured: Sequence[Measured]
    links: Sequence[PairBandwidth] = ()
    hosts: Mapping[int, str] = field(default_factory=dict)

    @property
    def advice(self) -> str:
        """See `advice`."""
        return advice(self.measured, self.links, self.hosts)


def bench(
    build_model: Callable[[], Any],
    rows: Mapping[str, Any] | str,
    numbers: Sequence[int],
    arguments: Mapping[str, Any],
    *,
    epochs: int,
    say: Callable[[str], None],
) -> Bench:
    """Train with each of these numbers of workers, and measure the links of the largest.

    Args:
        build_model: of the user, without arguments.
        rows: arrays, or the path of a dataset.
        numbers: how many workers.
        arguments: those of `Trainer.fit`, and `address` of a Ray cluster.
        epochs: so many are timed, after a first one.
        say: gets a line for each number of workers.
    """
    from heliostat.data import write_dataset
    from heliostat.trainer import Trainer
    from heliostat.trainer.driver.run_folder import read_record

    found: list[Measured] = []
    links: tuple[PairBandwidth, ...] = ()
    fit = {name: value for name, value in arguments.items() if name != "address"}
    with tempfile.TemporaryDirectory(prefix="heliostat-bench-") as name:
        data = rows if isinstance(rows, str) else write_dataset(Path(name) / "data", rows).path
        for number in sorted(numbers):
            say(f"training on {number} worker(s)")
            run_dir = Path(name) / f"run-{number}"
            with Trainer(build_model, workers=number, run_dir=run_dir, address=arguments.get("address")) as trainer:
                links = trainer.measure_links() if number == max(numbers) and number > 1 else ()
                result = trainer.fit(data, epochs=epochs + 1, verbose=0, checkpoint_every=None, **fit)
                hosts = trainer.hosts
            lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
            num_weights = read_record(result.run_dir)["num_weights"]
            found.append(measured(number, lines, fit["global_batch_size"], num_weights))
    return Bench(measured=found, links=links, hosts=hosts)


def measured(
    workers: int, lines: Sequence[Mapping[str, Any]], global_batch_size: int, num_weights: int = 0
) -> Measured:
    """From the lines of ``metrics.jsonl``; the first epoch, with its traces, counts only as the beginning."""
    timed = lines[1:]
    rows, seconds = sum(line["rows"] for line in timed), lines[-1]["time"] - lines[0]["time"]
    steps = sum(-(-line["rows"] // global_batch_size) for line in timed)
    by_worker = [times for line in timed for times in line["seconds_by_worker"].values()]
    scale = 1000 * len(timed) / steps / len(by_worker)
    split = {part: round(scale * sum(times.get(f"{part}_s", 0.0) for times in by_worker), 3) for part in PARTS}
    return Measured(
        workers=workers,
        samples_per_s=round(rows / seconds, 1),
        step_ms={"whole": round(1000 * seconds / steps, 3), **split},
        num_weights=num_weights,
    )


def built_in() -> tuple[Callable[[], Any], dict[str, Any]]:
    """A text classifier of the kind that the demo trains, and rows for it."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = STEPS_PER_EPOCH * 256
    return _classifier, {"x": rng.integers(0, 5000, (rows, 100), np.int32), "y": rng.integers(0, 46, rows)}


def _classifier() -> Any:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Embedding(5000, 64),
            layers.Conv1D(64, 5, activation="relu"),
            layers.MaxPooling1D(4),
            layers.Conv1D(64, 5, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(46, activation="softmax"),
        ]
    )
    model.compile(optimizer="nadam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def named(function: str) -> Callable[[], Any]:
    """The function ``module:name``, looked for in the working directory too; raises ScriptError."""
    module, _, name = function.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ScriptError(
            f"--model {function!r} cannot be found: {error}. Give it as module:function, a function without arguments "
            "that returns a compiled keras.Model."
        ) from error
    if not callable(found):
        raise ScriptError(f"--model {function!r} is a {type(found).__name__}, no function.")
    import cloudpickle

    cloudpickle.register_pickle_by_value(importlib.import_module(module))  # workers may not find it
    return found  # type: ignore[no-any-return]


def as_object(found: Bench) -> dict[str, Any]:
    """What was measured, for ``--json``."""
    alone = min(found.measured, key=lambda each: each.workers)
    return {
        "measured": [asdict(each) | {"efficiency": round(each.efficiency(alone), 3)} for each in found.measured],
        "links": [asdict(link) for link in found.links],
        "hosts": dict(found.hosts),
        "advice": found.advice,
    }


def measured_table(found: Sequence[Measured]) -> Table:
    """What was measured, as a table for a terminal."""
    from ..console import table

    alone = min(found, key=lambda each: each.workers)
    headings = (">workers", ">samples/s", ">efficiency", ">step", *(f">{part.replace('_', ' ')}" for part in PARTS))
    rows = (
        (
            *(each.workers, f"{each.samples_per_s:,.0f}", f"{each.efficiency(alone):.0%}"),
            *(f"{each.step_ms[part]:.2f}" for part in ("whole", *PARTS)),
        )
        for each in found
    )
    return table(headings, rows, title="samples per second, and milliseconds of a step")


def links_table(found: Bench) -> Table:
    """The links as a matrix: bandwidth each way, and the duration of the smallest all-reduce."""
    from ..console import table

    links = {pair: link for link in found.links for pair in (link.workers, link.workers[::-1])}
    workers = sorted({worker for pair in links for worker in pair})
    rows = (
        [f"{one} ({found.hosts.get(one, '?')})", *("" if one == to else _cell(links[one, to]) for to in workers)]
        for one in workers
    )
    title = "between two workers: bandwidth each way, duration of the smallest all-reduce"
    return table(["worker", *(f">{worker}" for worker in workers)], rows, title=title)


def _cell(link: PairBandwidth) -> str:
    return f"{shown_rate(link.bytes_per_s)}, {1000 * link.latency_s:.2g} ms"
