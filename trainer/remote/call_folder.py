"""A call of a trainer on its way to a cluster: a folder that the other side can read in parts.

**What the other side must be told before it unpickles anything is plain JSON** (``call.json``): which call it is, its
settings, and what the machine must have (`Wanted`, with the facts of this one). A pickle of a function is bytecode of
one minor version of Python, and names modules by their versions of today; whoever loads it elsewhere gets whatever
comes of that, in an error that names anything but the cause. So the pickles lie beside, one file each, and are opened
when machine and modules have been compared (`called`). The user's code is not even opened then: the driver in the job
hands it on to its workers as it came. Only a dataset is, since its rows are read by the driver.

Arrays are a file of `checkpoints.values`, never a pickle. The data itself travels beside this folder, at the absolute
paths that it has here, below a folder there (`moved`): a dataset is the same wherever its files are.

What was not done: one pickle of the whole call (it could not be looked into), and JSON for code (a function's source is
not the function: closures, defaults, notebooks).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from heliostat.cluster.preflight import Facts, Wanted
from heliostat.data import Dataset

from ..checkpoints.values import pack as pack_values
from ..checkpoints.values import unpack as unpack_values
from ..columns import Columns
from ..config import CheckpointEvery, EverySeconds, EverySteps, FitConfig, PassConfig
from ..driver.plan import Program
from ..driver.runs import FitCall, PassCall
from ..errors import TrainerError
from ..shipping import Packed, Shipped, unship
from ..trainer_config import TrainerConfig

MODULE = "heliostat.trainer.remote.called"  # what runs in the job
CALL_FILE, BUILD_MODEL, CODE, PREPARE, WEIGHTS = "call.json", "build_model", "code", "prepare", "initial_weights"
DATA, VALIDATION, PREDICTIONS = "data", "validation_data", "predictions"
_APART = {"build_model", "address", "code", "prepare", "initial_weights", "columns", "checkpoint_every"}
Method = Literal["fit", "evaluate", "predict"]
Named: TypeAlias = "str | None"  # data by a path or URI of the cluster's own; None where a dataset is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call as it travels.

    Attributes:
        method: of the trainer.
        settings: of the trainer, without `build_model` and `address`.
        wanted: those of the call, without what lies beside.
        columns: which are read; of `undecided` ones ("inputs", "targets") the dataset decides, once it is opened there.
        checkpoint_every: None, "epoch", or the number of steps or seconds by its name.
        runtime_env: as Ray takes it, for the workers.
        trackers: of the trainer, the arguments of `TrackersWanted`.
        data: by its name there; None if it is sent. Likewise `validation_data`, which `is_validated` says whether
            there is.
        anew: as in `FitCall`; `code` likewise.
        run_dir: the run folder there, absolute, or relative to the folder of the trainer's calls.
        before: the run folder there of the fit that this one goes on from, or whose model is to answer; empty without.
        before_checkpoints: where that fit kept its checkpoints; empty for its run folder.
        num_prepared: how many functions have changed the model since `build_model`; they lie beside.
        modules: what each pickle names.
        program: what asks for it.
        output: where predictions are written as a dataset there; empty where they are no dataset.
        must_have: what the machine there must have; `facts` are those of the one here.
    """

    method: Method
    settings: dict[str, Any]
    wanted: dict[str, Any]
    columns: dict[str, Any]
    undecided: tuple[str, ...] = ()
    checkpoint_every: dict[str, float] | str | None = None
    runtime_env: dict[str, Any] | None = None
    trackers: dict[str, Any] = field(default_factory=dict)
    data: Named = None
    validation_data: Named = None
    is_validated: bool = False
    anew: bool = False
    code: dict[str, str] = field(default_factory=dict)
    run_dir: str
    before: str = ""
    before_checkpoints: str = ""
    num_prepared: int = 0
    modules: dict[str, tuple[str, ...]] = field(default_factory=dict)
    program: Program
    output: str = ""
    must_have: Wanted = field(default_factory=Wanted)
    facts: Facts = field(default_factory=Facts)

    @property
    def fit_config(self) -> dict[str, Any]:
        """The arguments of `FitConfig` that are in here."""
        return {**self.wanted, "columns": Columns(**self.columns), "checkpoint_every": _every(self.checkpoint_every)}


class CallFolder:
    """The folder of a call; on this side it is written, on the other read.

    Args:
        path: where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, call: Call, pickles: Mapping[str, Packed], weights: tuple[np.ndarray, ...] | None = None) -> None:
        """Write all of it.

        Args:
            call: the call; which modules the pickles name is added.
            pickles: by name.
            weights: the initial ones, None without.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for name, packed in pickles.items():
            (self.path / f"{name}.pickle").write_bytes(packed.payload)
        if weights is not None:
            (self.path / WEIGHTS).write_bytes(pack_values(list(weights)))
        call = replace(call, modules={name: packed.modules for name, packed in pickles.items()})
        (self.path / CALL_FILE).write_bytes(msgspec.json.encode(call))

    def call(self) -> Call:
        """What is asked for; raises TrainerError if that cannot be read."""
        try:
            return msgspec.json.decode((self.path / CALL_FILE).read_bytes(), type=Call)
        except (OSError, msgspec.MsgspecError) as error:
            raise TrainerError(f"The call in {str(self.path)!r} cannot be read: {error}") from error

    def settings(self, call: Call) -> TrainerConfig:
        """The trainer's settings."""
        return TrainerConfig(**call.settings, build_model=self.packed(call, BUILD_MODEL))

    def fit_call(self, call: Call, unpacked: Path) -> FitCall:
        """What one call of `fit` asks for.

        Args:
            call: of this folder.
            unpacked: below which folder files of the data lie, at their absolute paths.
        """
        prepare = self.packed(call, PREPARE) if PREPARE in call.modules else None
        weights = self.path / WEIGHTS
        wanted = FitConfig(
            **call.fit_config,
            code=self.packed(call, CODE),
            prepare=prepare,
            initial_weights=tuple(unpack_values(weights.read_bytes())) if weights.exists() else None,
        )
        valid = self.rows(call, VALIDATION, unpacked) if call.is_validated else None
        return FitCall(
            wanted=wanted,
            data=self.rows(call, DATA, unpacked),
            validation_data=valid,
            anew=call.anew,
            code=call.code,
            undecided=call.undecided,
        )

    def pass_call(self, call: Call, unpacked: Path) -> PassCall:
        """What one call of `evaluate` or `predict` asks for; `unpacked` as in `fit_call`."""
        wanted = PassConfig(**call.wanted, columns=Columns(**call.columns))
        data = self.rows(call, DATA, unpacked)
        return PassCall(wanted=wanted, data=data, undecided=call.undecided, output=call.output)

    def rows(self, call: Call, name: str, unpacked: Path) -> str | Dataset:
        """What rows are to be read: the name that they have here, or a dataset of the files that were sent.

        Args:
            call: of this folder.
            name: of the data.
            unpacked: see `fit_call`.
        """
        named: Named = getattr(call, name)
        if named is not None:
            return named
        dataset: Dataset = unship(self.packed(call, name), name)
        return moved(dataset, unpacked)

    def prepared(self, call: Call) -> tuple[Packed, ...]:
        """The functions that have changed the model up to now."""
        return tuple(self.packed(call, prepared_name(number)) for number in range(call.num_prepared))

    def packed(self, call: Call, name: str) -> Packed:
        """A pickle, as it came."""
        return Packed((self.path / f"{name}.pickle").read_bytes(), call.modules.get(name, ()))


def prepared_name(number: int) -> str:
    """The name of the pickle of one of the functions that have changed the model."""
    return f"prepared-{number}"


def moved(dataset: Dataset, unpacked: Path) -> Dataset:
    """The dataset of the files that were sent, which lie below a folder at the paths that they had."""
    return dataset.reached(lambda path: f"{unpacked}{path}")


def plain_settings(settings: TrainerConfig) -> dict[str, Any]:
    """The settings of a trainer that are plain values, by name."""
    return {each.name: getattr(settings, each.name) for each in fields(settings) if each.name not in _APART}


def plain_wanted(wanted: FitConfig | PassConfig) -> dict[str, Any]:
    """The settings of a call that are plain values, by name."""
    found = {each.name: getattr(wanted, each.name) for each in fields(wanted) if each.name not in _APART}
    found.pop("code_digests", None)
    if isinstance(wanted, FitConfig):
        found |= {"code_digests": dict(wanted.code_digests)}
        found |= {"checkpoint_dir": None if wanted.checkpoint_dir is None else os.fspath(wanted.checkpoint_dir)}
    return found


def plain_columns(columns: Columns) -> dict[str, Any]:
    """Columns as plain values."""
    return {each.name: getattr(columns, each.name) for each in fields(columns)}


def plain_every(every: CheckpointEvery) -> dict[str, float] | str | None:
    """When checkpoints are made, as plain values."""
    match every:
        case EverySteps(num=num):
            return {"steps": num}
        case EverySeconds(seconds=seconds):
            return {"seconds": seconds}
    return every


def _every(found: dict[str, float] | str | None) -> CheckpointEvery:
    if isinstance(found, dict):
        return EverySteps(int(found["steps"])) if "steps" in found else EverySeconds(found["seconds"])
    return None if found is None else "epoch"


def payload_of(shipped: Shipped) -> Packed:
    """What was shipped to leave this process; raises TypeError for what stays in it."""
    if isinstance(shipped, Packed):
        return shipped
    raise TypeError("this code was not packed for another process")
