"""Is this a place to train? The machines are looked at, then what a run needs of them is proved, one thing at a time.

Whoever sets up a cluster learns of a full disk, an old package or a closed port from the first run that fails, one at a
time, and of a clock or a slow link never. So everything that a run's start asks of workers' machines (`preflight`,
`knocking`) is asked here of all machines of the cluster, with more that is worth knowing, and then the real parts do
once what they do in a run (`proofs`). A thing that is not well must not hide the next one: each has its own finding,
and only what cannot be tried at all is left out, which is said.

Machines are asked by an actor without cores on each (`inspector`), so a busy cluster can be examined, too; what needs
cores waits for them (`proofs.START_TIMEOUT_S`). Findings come one by one, as they are made.

What was not done: to look at what only matters to a model of the user's (`heliostat bench` does), to test disks and
networks to their limits, and to mend anything: a doctor who installs packages is another program.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import ray
from heliostat.cluster.errors import ClusterError, DiskError, PlacementError
from heliostat.cluster.knocking import Address
from heliostat.cluster.links import PairBandwidth
from heliostat.cluster.pools.ray_room import living_nodes
from heliostat.cluster.pools.ray_session import join_ray, leave_ray, left_out, one_machine, warning_without_tokens
from heliostat.cluster.preflight import Facts, Wanted, asked, complaints_of, facts_of, look
from heliostat.data import DatasetError
from ray.exceptions import RayError

from ..driver.asked import asked_address
from ..driver.run_paths import placed
from ..errors import ConfigurationError, TrainerError
from ..preflight import wanted_for
from ..storage_thread import beside
from ..trainer_config import TrainerConfig
from . import machine, proofs
from .finding import Finding, fail, of_complaints, ok, warn
from .inspector import FIRST, FIRST_ANSWER_S, Inspectors
from .machine import LITTLE_ROOM_BYTES, Machine, Node

Say = Callable[[str], None]
SILENT_S, LOOK_S = 7.0, 1.0  # nothing is silent for ten seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an examination has come to.

    Attributes:
        findings: in the order in which they were made.
        nodes: the machines, as far as they have answered.
        links: between the workers of the proof, by their numbers.
        driver: what the process that examined has itself.
    """

    findings: tuple[Finding, ...] = ()
    nodes: tuple[Node, ...] = ()
    links: tuple[PairBandwidth, ...] = ()
    driver: Facts = field(default_factory=Facts)


class _Saying:
    """Says what is done, and again where nothing else was said for a while."""

    def __init__(self, say: Say) -> None:
        self._say, self._line = say, "looking at this machine"
        self._began_s = self._heard_s = time.monotonic()

    def say(self, line: str) -> None:
        """Something begins."""
        self._line, self._began_s = line, time.monotonic()
        self.heard()
        self._say(line)

    def heard(self) -> None:
        """Something was said."""
        self._heard_s = time.monotonic()

    def again(self, _seconds: float) -> None:
        """Look whether it is time to say that it still goes on; from a thread."""
        now_s = time.monotonic()
        if now_s - self._heard_s > SILENT_S:
            self.heard()
            self._say(f"still {self._line} ({now_s - self._began_s:.0f} s)")


@dataclass(slots=True)
class _Place:
    """What is known of the place so far, and what was told."""

    nodes: list[Node] = field(default_factory=list)
    links: list[PairBandwidth] = field(default_factory=list)
    told: list[Finding] = field(default_factory=list)


def examine(address: str | None, tell: Callable[[Finding], None], say: Say) -> Report:
    """Look at everything, and prove what can be proved.

    Args:
        address: of a cluster, as a trainer takes it.
        tell: gets each finding as soon as it is made.
        say: gets a line about what begins.
    """
    wanted = wanted_for((), None)
    here, place, saying = look(wanted), _Place(), _Saying(say)
    with beside(saying.again, LOOK_S, "heliostat-doctor"):
        for each in _findings(address, place, wanted, here, saying.say):
            place.told.append(each)
            tell(each)
            saying.heard()
    return Report(findings=tuple(place.told), nodes=tuple(place.nodes), links=tuple(place.links), driver=here)


def _findings(address: str | None, place: _Place, wanted: Wanted, here: Facts, say: Say) -> Iterator[Finding]:
    yield from of_packages(wanted, here)
    yield from of_run_folders(placed(Path("runs")).absolute())
    say("connecting to Ray" if address else "connecting to Ray, or starting one")
    try:
        asked_for = asked_address(TrainerConfig(workers=2, address=address))
        leaves = join_ray(asked_for, num_cpus=2)
    except (PlacementError, ConfigurationError) as error:
        yield fail("Ray", str(error), "")
        yield warn("proofs", "nothing was tried, for there is no Ray to try it on", "")
        return
    try:
        if line := left_out(asked_for):
            yield warn("Ray", line, "")
        yield from _of_cluster(address, place, wanted, here, say)
    finally:
        if leaves:
            leave_ray()


def of_packages(wanted: Wanted, here: Facts) -> Iterator[Finding]:
    """What this process has installed; that the machines have the same is looked at later.

    Args:
        wanted: what a run needs.
        here: what this process finds.
    """
    versions = {"Python": here.python[0], **here.versions}
    for name, version in versions.items():
        if not version:
            distribution = wanted.packages[name][0]
            yield fail("packages", f"{name} is not installed ({here.python[1]})", f"pip install {distribution}")
    yield ok("packages", ", ".join(f"{name} {version}" for name, version in versions.items() if version), here.host)


def of_run_folders(place: Path) -> Iterator[Finding]:
    """Whether runs find room where they lie by default."""
    facts = look(Wanted(folders=(str(place),)))
    room = facts.room[str(place)]
    if isinstance(room, str):
        remedy = "Give run_dir= on a disk that can be written, or change to such a folder"
        yield fail("run folders", f"nothing can be written in {place}: {room}", remedy, facts.host)
    elif room < LITTLE_ROOM_BYTES:
        what = f"the disk of {place} has {machine.mb(room)} left; checkpoints of a run go there"
        yield warn("run folders", what, "Free some, or give run_dir= on another disk", facts.host)
    else:
        yield ok("run folders", f"{machine.gb(room)} left in {place}", facts.host)


def _of_cluster(address: str | None, place: _Place, wanted: Wanted, here: Facts, say: Say) -> Iterator[Finding]:
    try:
        nodes = [node_of(each) for each in living_nodes()]
    except PlacementError as error:
        yield fail("Ray", str(error), "")
        return
    where = "started here for this" if one_machine() else f"at {ray.get_runtime_context().gcs_address}"
    yield ok("Ray", f"{ray.__version__}, {where}, {len(nodes)} machine(s): {machine.hosts_of(nodes)}")
    if line := warning_without_tokens():
        what, _, remedy = line.removeprefix("warning: ").partition(" Start ")
        yield warn("token", what, f"Start {remedy}" if remedy else "")
    else:
        yield ok("token", "only who has the token can give commands" if not one_machine() else "a Ray of its own")
    say(f"looking at {len(nodes)} machine(s)")
    with Inspectors(nodes) as inspectors, tempfile.TemporaryDirectory(prefix="heliostat-doctor-") as name:
        yield from guarded("machines", _of_machines(inspectors, nodes, place, wanted, here))
        yield from guarded("proofs", _of_proofs(inspectors, place.nodes, Path(name), say))
    if place.nodes:
        yield from guarded("training", _of_training(address, place, say))


def guarded(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings; what nobody has thought of is one, too, so that it hides no others."""
    try:
        yield from findings
    except (DatasetError, TrainerError, ClusterError, OSError) as error:  # these say what to do
        yield fail(check, str(error), "")
    except Exception as error:  # of Ray, of ours: a place that is not well may raise anything
        yield fail(check, f"{type(error).__name__}: {error}", "Report it, with the output of: heliostat --version")


def _of_machines(
    inspectors: Inspectors, nodes: Sequence[Node], place: _Place, wanted: Wanted, here: Facts
) -> Iterator[Finding]:
    """Look at each; those that answer are noted in `place`."""
    question = asked(wanted)
    looked = inspectors.ask(FIRST, nodes, "look", lambda node: (question,), FIRST_ANSWER_S)
    yield from looked.findings
    there: dict[str, tuple[Node, Facts, Address]] = {}
    for node, (answer, door) in looked.found:
        try:
            facts = facts_of(answer)
        except msgspec.MsgspecError as error:
            yield fail(FIRST, f"Heliostat there answers {error}", "Install the same build on all machines", node.host)
            continue
        there[node.id] = replace(node, memory_bytes=facts.memory_bytes), facts, (door[0], door[1])
    yield from of_facts(wanted, here, [facts for _, facts, _ in there.values()])
    seen = [node for node, _, _ in there.values()]
    answers = inspectors.ask("machine", seen, "machine", lambda node: (node.num_gpus,), machine.LOOK_AT_GPUS_S + 30)
    yield from answers.findings
    for node, found in answers.found:
        known = replace(node, machine=msgspec.json.decode(found, type=Machine))
        with contextlib.suppress(RayError):  # what it does not answer now is said where it is asked next
            known = replace(known, ahead_s=inspectors.ahead_s(known))
        place.nodes.append(known)
    if place.nodes:
        yield from machine.of_size(place.nodes)
        yield from machine.of_memory(place.nodes)
        yield from machine.of_disk(place.nodes)
        yield from machine.of_clocks(place.nodes)
        yield machine.of_hardware([each for each in place.nodes if each.resources.get("CPU")] or place.nodes)
        yield from machine.of_gpus(place.nodes)
        yield from _of_network(inspectors, place.nodes, {node: door for node, (_, _, door) in there.items()})


def of_facts(wanted: Wanted, here: Facts, there: Sequence[Facts]) -> Iterator[Finding]:
    """What machines lack of what the driver has, and of what a worker needs.

    Args:
        wanted: what was asked.
        here: the driver's facts.
        there: those of the machines.
    """
    lacking = {
        FIRST: [replace(each, room={}, memory_bytes=None) for each in there],
        "disk": [replace(each, memory_bytes=None) for each in there],
        "memory": [replace(each, room={}) for each in there],
    }
    for check, facts in lacking.items():
        compared = ((here if check == FIRST else each, each) for each in facts)
        found = of_complaints(check, [one for mine, each in compared for one in complaints_of(wanted, mine, each)])
        yield from found
        if not found and check == FIRST and facts:
            yield ok(check, f"the same Python, packages and Heliostat on {len(facts)} machine(s)")
        if not found and check == "disk" and facts:
            rooms = [room for each in facts for room in each.room.values() if isinstance(room, int)]
            yield ok(check, f"{machine.gb(min(rooms))} or more left for what is fetched")


def _of_network(inspectors: Inspectors, nodes: Sequence[Node], doors: Mapping[str, Address]) -> list[Finding]:
    """Whether every machine reaches every other one."""
    by_number = {number: (node, doors[node.id]) for number, node in enumerate(nodes)}

    def others(node: Node) -> tuple[object, ...]:
        return ({number: door for number, (each, door) in by_number.items() if each is not node},)

    answers = inspectors.ask("network", nodes, "knock", others)
    found = [*answers.findings]
    for node, unreached in answers.found:
        for number, why in unreached.items():
            other, (host, port) = by_number[number]
            remedy = f"Open all ports above 1023 between them; try from {node.host}: nc -zv {host} {port}"
            found.append(fail("network", f"cannot reach {other.host} ({host}, port {port}): {why}", remedy, node.host))
    pairs = len(nodes) * (len(nodes) - 1) // 2
    return found or [ok("network", f"all {pairs} pair(s) of machines reach each other" if pairs else "one machine")]


def _of_proofs(inspectors: Inspectors, nodes: Sequence[Node], folder: Path, say: Say) -> Iterator[Finding]:
    """What every machine must do with this one's disk."""
    if not nodes:
        yield warn("proofs", "nothing was tried, for no machine answers", "")
        return
    say("reading rows and a checkpoint on each")
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(proofs.served(folder, one_machine=one_machine()))
        except (DiskError, OSError) as error:
            yield fail("disk", f"this machine's disk cannot be served to the others: {error}", "")
            return
        yield from guarded("shards", proofs.of_shards(inspectors, nodes, folder, disk))
        yield from guarded("checkpoint", proofs.of_checkpoints(inspectors, nodes, folder, disk))


def _of_training(address: str | None, place: _Place, say: Say) -> Iterator[Finding]:
    layout = proofs.layout_for(place.nodes)
    if layout is None:
        yield fail("workers", "no machine gives a CPU away", "Start Ray with --num-cpus=1 or more on one of them")
        return
    if any(each.check == "packages" and each.state == "fail" for each in place.told):
        yield warn("workers", "none was started, for packages are missing here: see above", "")
        return
    say(f"starting {layout.workers} worker(s), to sum and to train")
    told = {each.what for each in place.told}
    with tempfile.TemporaryDirectory(prefix="heliostat-doctor-") as folder:
        yield from proofs.of_training(address, place.nodes, layout, Path(folder), place.links, told)


def node_of(found: Mapping[str, Any]) -> Node:  # Ray gives no closer type
    """A machine, as `ray.nodes` has it."""
    resources = {name: float(amount) for name, amount in found["Resources"].items() if not name.startswith("node:")}
    return Node(
        id=found["NodeID"], host=found["NodeManagerHostname"], address=found["NodeManagerAddress"], resources=resources
    )
