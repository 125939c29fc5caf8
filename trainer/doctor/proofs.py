"""What is proved rather than looked at: that data, checkpoints, sums and steps work, with the parts that a run uses.

Rows and a checkpoint go between the driver's disk and every machine, whether workers will be placed there or not. Then
a real `Trainer` gets a worker on each machine, measures the links between all of them by all-reduces, and trains. The
model is a linear one, and every step has all rows, so what must come out follows from a few lines of numpy: a worker
whose sum got lost, or whose rows were left out, changes it.

What was not done: to compare bits with a run in this process. It would load TensorFlow here, whose kernels may be
others than those of the machines there, and then differ where nothing is wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from heliostat.cluster.disk.disk import start_disk, stop_disk
from heliostat.cluster.disk.served import Root
from heliostat.cluster.errors import ClusterError, DiskError, PlacementError, PreflightError
from heliostat.cluster.links import PairBandwidth, far_slower, shown_rate
from heliostat.data import Dataset, DatasetError, write_dataset

from ..checkpoints.manifest import CheckpointManifest, checkpoint_name
from ..checkpoints.store import CheckpointStore
from ..errors import CheckpointError, TrainerError
from ..trainer import Trainer
from .finding import Finding, fail, of_complaints, ok, warn
from .inspector import Inspectors, digest_of
from .machine import Node

if TYPE_CHECKING:
    import keras
    from heliostat.cluster.disk.disk import Disk

ROWS_BYTES = 8_000_000
STEPS, RATE = 3, 0.125
ROWS_PER_WORKER = 64
START_TIMEOUT_S = 180.0
EXACT_TO = {"cpu": 1e-5, "gpu": 2e-3}  # of losses; GPUs round what they multiply to ten bits
_DAMAGE = "Look for a damaged disk or memory: dmesg | tail"
_SLOPES = ((1,), (-2,), (3,), (-1,))


@contextlib.contextmanager
def served(folder: Path, *, one_machine: bool) -> Iterator[Disk | None]:
    """A folder of this machine, which others may read and write; None where there are no others.

    Raises:
        DiskError, OSError: it cannot be served.
    """
    if one_machine:
        yield None
        return
    disk = start_disk()
    try:
        disk = disk.serving(Root(path=str(folder), is_writable=True))
        yield disk
    finally:
        stop_disk(disk)


def of_shards(inspectors: Inspectors, nodes: Sequence[Node], folder: Path, disk: Disk | None) -> Iterator[Finding]:
    """Every machine reads a shard that lies on this one's disk.

    Args:
        inspectors: on the machines.
        nodes: the machines.
        folder: of this machine, served.
        disk: serves it.

    Raises:
        DatasetError, OSError: it cannot be written here.
    """
    rng = np.random.default_rng()  # other rows each time: those of the last time may be in a cache
    rows = {"x": rng.random((ROWS_BYTES // 1024, 256), np.float32)}
    dataset, wanted = write_dataset(folder / "shard", rows), digest_of(rows)
    answers = inspectors.ask("shards", nodes, "read", lambda node: (dataset, disk))
    inspectors.ask("shards", [node for node, _ in answers.found], "forget")
    wrong = [node.host for node, (digest, _) in answers.found if digest != wanted]
    yield from answers.findings
    if wrong:
        what = f"{ROWS_BYTES // 1_000_000} MB of rows were read, and are others than those that were written"
        yield fail("shards", what, _DAMAGE, *wrong)
    through = sum(came for _, (digest, came) in answers.found if digest == wanted)
    if right := len(answers.found) - len(wrong):
        what = f"{ROWS_BYTES // 1_000_000} MB of rows of this machine's disk were read on {right} machine(s)"
        yield ok("shards", f"{what}, on {through} of them through this one" if through else what)


def of_checkpoints(inspectors: Inspectors, nodes: Sequence[Node], folder: Path, disk: Disk | None) -> Iterator[Finding]:
    """Every machine writes a checkpoint to this one's disk, and reads it back once this one has committed it.

    Args:
        inspectors: on the machines.
        nodes: the machines.
        folder: of this machine, served.
        disk: serves it.
    """
    store = CheckpointStore(folder / "checkpoints")
    names = {node.id: checkpoint_name(0, 0, number) for number, node in enumerate(nodes)}
    arguments: Callable[[Node], tuple[object, ...]] = lambda node: (store.location, names[node.id], disk)  # noqa: E731
    written = inspectors.ask("checkpoint", nodes, "write", arguments)
    yield from written.findings
    committed = []
    for node, entries in written.found:
        manifest = CheckpointManifest(
            generation=nodes.index(node),
            epoch=0,
            step=0,
            begun=False,
            identity={},
            history=(),
            extra={},
            tensors=entries,
        )
        try:
            store.commit(names[node.id], manifest)
        except CheckpointError as error:
            yield fail("checkpoint", str(error), "", node.host)
        else:
            committed.append(node)
    loaded = inspectors.ask("checkpoint", committed, "load", arguments)
    yield from loaded.findings
    if other := [node.host for node, is_same in loaded.found if not is_same]:
        yield fail("checkpoint", "what is read back is not what was written", _DAMAGE, *other)
    if right := sum(bool(is_same) for _, is_same in loaded.found):
        yield ok("checkpoint", f"written to this machine's disk and read back on {right} machine(s)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many workers the proof has, and on what; replicas are all GPUs of a worker, or two of a processor."""

    workers: int
    device: Literal["cpu", "gpu"]


def layout_for(nodes: Sequence[Node]) -> Layout | None:
    """A worker for each machine that can have one, two on a machine alone; None where there is room for none.

    Where there are GPUs, workers are where they are, since others do not mix with them.
    """
    gpus = [node.num_gpus for node in nodes if node.num_gpus]
    if gpus:
        return Layout(workers=2 if len(gpus) == 1 and gpus[0] > 1 else len(gpus), device="gpu")
    cpus = [int(node.resources.get("CPU", 0)) for node in nodes]
    having = [count for count in cpus if count]
    if not having:
        return None
    return Layout(workers=min(2, having[0]) if len(having) == 1 else len(having), device="cpu")


def of_training(
    address: str | None,
    nodes: Sequence[Node],
    layout: Layout,
    folder: Path,
    links: list[PairBandwidth],
    told: Collection[str],
) -> Iterator[Finding]:
    """Workers start, sum, and train.

    Args:
        address: as a trainer takes it.
        nodes: the machines.
        layout: of the workers.
        folder: of this machine, for data and the run.
        links: what is measured between workers is added.
        told: what machines were found to lack, which need not be told again.
    """
    trainer = Trainer(
        build_linear,
        workers=layout.workers,
        replicas_per_worker="auto" if layout.device == "gpu" else 2,
        threads_per_worker=1,
        address=address,
        run_dir=folder / "run",
        mixed_hardware="allow",
        start_timeout_s=START_TIMEOUT_S,
    )
    with trainer:
        try:
            links += trainer.measure_links()
        except PreflightError as error:
            hosts = dict.fromkeys(each.host for each in error.complaints)
            yield from of_complaints("workers", (each for each in error.complaints if each.what not in told))
            yield fail("workers", "none can begin, since these machines lack something: see above", "", *hosts)
            return
        except (PlacementError, TrainerError, DiskError) as error:
            yield fail("workers", str(error), "")
            return
        except ClusterError as error:  # they have started, and the sum has failed
            yield fail("all-reduce", str(error), "")
        else:
            yield from of_places(trainer.hosts, nodes)
            yield from of_links(links, trainer.hosts)
        yield from of_steps(trainer, layout, folder)


def of_places(hosts: dict[int, str], nodes: Sequence[Node]) -> Iterator[Finding]:
    """Whether there is a worker on each machine that could have one.

    Args:
        hosts: of the workers, by their numbers.
        nodes: the machines.
    """
    yield ok("workers", f"{len(hosts)} worker(s) on {len(set(hosts.values()))} machine(s)")
    with_gpus = any(node.num_gpus for node in nodes)
    for node in nodes:
        could = node.num_gpus if with_gpus else int(node.resources.get("CPU", 0))
        if could and node.host not in hosts.values():
            what = "no worker could be placed there, for others hold its CPUs: sums and steps were not tried there"
            yield warn("workers", what, "See who: ray status -v; then again", node.host)


def of_links(links: Sequence[PairBandwidth], hosts: dict[int, str]) -> Iterator[Finding]:
    """What was measured between workers.

    Args:
        links: between every two.
        hosts: of the workers, by their numbers.
    """
    if not links:
        yield ok("all-reduce", "one worker: there is nothing to sum between workers")
        return
    yield ok("all-reduce", f"summed by {len({each for link in links for each in link.workers})} workers")
    slowest, longest_s = min(links, key=lambda each: each.bytes_per_s), max(each.latency_s for each in links)
    one, other = (hosts.get(each, "?") for each in slowest.workers)
    pair = f"{one} and {other}" if one != other else f"two workers on {one}"
    what = f"{shown_rate(slowest.bytes_per_s)} each way between {pair}"
    if far_slower(links) is not None:
        remedy = "Look at these machines' network, such as: ethtool eth0 | grep Speed"
        yield warn("links", f"{what}, less than half of what most pairs have", remedy)
    else:
        yield ok("links", f"{what}{', the slowest' if len(links) > 1 else ''}; {1000 * longest_s:.2g} ms at most")


def of_steps(trainer: Trainer, layout: Layout, folder: Path) -> Iterator[Finding]:
    """Some steps, and what must come out.

    Args:
        trainer: of the linear model.
        layout: of its workers.
        folder: of this machine, for the data.
    """
    x, y = linear_rows(ROWS_PER_WORKER * layout.workers)
    try:
        dataset: Dataset = write_dataset(folder / "rows", {"x": x, "y": y})
        fitted = trainer.fit(dataset, epochs=STEPS, global_batch_size=len(y), verbose=0)
        found = [*fitted.history["loss"], trainer.evaluate(dataset)["loss"]]
    except (TrainerError, ClusterError, DatasetError, OSError) as error:
        yield fail("step", str(error), "")
        return
    wanted = linear_losses(x, y)
    if not np.allclose(found, wanted, rtol=EXACT_TO[layout.device]):
        shown = ", ".join(f"{each:.6g}" for each in found)
        what = f"losses are {shown}, and must be {', '.join(f'{each:.6g}' for each in wanted)}"
        yield fail("step", what, "Report it, with the output of: heliostat doctor --json")
        return
    yield ok("step", f"{STEPS} steps of {len(y)} rows on {layout.workers} worker(s) have the losses they must have")


def linear_rows(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Small whole numbers, so that the first sums are exact in any order."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (num, len(_SLOPES)))
    y = x @ _SLOPES + rng.integers(-1, 2, (num, 1))
    return x.astype(np.float32), y.astype(np.float32)


def linear_losses(x: np.ndarray, y: np.ndarray) -> list[float]:
    """The loss before each step of gradient descent from zero on, and after the last."""
    weights, losses = np.zeros((len(_SLOPES), 1)), []
    for _ in range(STEPS + 1):
        error = x @ weights - y
        losses.append(float(np.mean(error**2)))
        weights = weights - RATE * 2 * x.T @ error / len(y)
    return losses


def build_linear() -> keras.Model:
    """A linear model without a bias, from zero."""
    import keras

    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((len(_SLOPES),)), layer])
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss="mean_squared_error")
    return model
