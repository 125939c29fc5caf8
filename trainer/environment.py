"""Every environment variable that Heliostat sets or reads, and what a command of `heliostat` hands to a script by them.

``heliostat resume``, ``replay``, ``trace``, ``chaos``, ``verify-run`` and ``run --quick`` run the user's script,
unchanged, in a process of its own, and want something of its `fit` besides training. They say it by variables::

    HELIOSTAT_RUN_DIR   absolute path of the run folder to use, whatever the script says
    HELIOSTAT_FIT       which fit of the process is meant, counted from 1. Without it all are: the first uses that
                        folder, the others the same with -2, -3 ... behind it; their checkpoints are in there, too
    HELIOSTAT_REPLAY    STEP or STEP:MICROBATCH: compute it again instead of training, into replay.json
    HELIOSTAT_TRACE     FIRST:END: record the steps FIRST to END - 1, in the first fit that has them, into trace.json
    HELIOSTAT_KILLS     SECONDS:SEED: kill a random worker so often (inf: never, but it must be possible)
    HELIOSTAT_VERIFY    STEPS, STEPS:MICROBATCHES:THREADS, or this and :kill or :plain: only the first steps, which are
                        told variable by variable; with a worker killed; each held against plain Keras
    HELIOSTAT_QUICK     STEPS: two epochs of so many steps, the second from the checkpoint of the first

The first `fit` of the process, or a pass before it, reads all of them and removes them, so that no process it starts
takes them for its own. ``heliostat run --plan`` has one that the first task reads, whatever it is::

    HELIOSTAT_PLAN      1: say how that `fit`, `evaluate` or `predict` would be computed, and compute nothing

After a plan, a replay, a trace or such first steps the call ends the script as ``sys.exit(0)`` does: `finally` blocks
run, what comes behind does not. After the others the command then looks at the files in the run folder; what the script
made of that exit does not matter.

Of a job that is watched from elsewhere, set in the job and read by each trainer of the script::

    HELIOSTAT_EVENTS    absolute path: what there is to show is told in lines of JSON (`remote.wire`), and links to run
                        folders are made, whose paths begin with this one (`remote.links`)

Five more are a user's own, and stay::

    HELIOSTAT_WORKERS   how many workers trainers have, whatever the script says, as ``heliostat run --workers`` sets it
    HELIOSTAT_ADDRESS   the Ray cluster of trainers that are given no address=, like that argument
    HELIOSTAT_HOME      absolute path of a folder; relative run folders of a Ray job lie below it, in a folder with the
                        name of the script, for the current directory of a job is another one after any edit of the
                        script. Without it that is ~/heliostat
    HELIOSTAT_REPORT    0: fits write no report.html and no summary.json; for searches that make hundreds of short runs
    HELIOSTAT_TRACEBACK 1: uncaught errors of Heliostat are shown with all frames, as by ``heliostat --traceback run``

Of clients of others that trackers use, what decides here as well: `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`,
`MLFLOW_EXPERIMENT_ID` and `WANDB_MODE`.

Nothing else was wanted of this interface than to be dull. Objects handed over inside one process (as it was once) need
a global that the trainer looks at, exceptions of our own that fly through the user's code, and a script that cannot be
told from the command around it; a variable is seen in ``ps`` and can be set by hand.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from heliostat.cluster.pools.ray_address import in_job

from .errors import ConfigurationError, EnvironmentVariableError
from .shortened import QuickWanted, VerifyWanted

RUN_DIR, FIT = "HELIOSTAT_RUN_DIR", "HELIOSTAT_FIT"
REPLAY, TRACE, KILLS = "HELIOSTAT_REPLAY", "HELIOSTAT_TRACE", "HELIOSTAT_KILLS"
VERIFY, QUICK = "HELIOSTAT_VERIFY", "HELIOSTAT_QUICK"
PLAN = "HELIOSTAT_PLAN"
ADDRESS, HOME = "HELIOSTAT_ADDRESS", "HELIOSTAT_HOME"
WORKERS, EVENTS = "HELIOSTAT_WORKERS", "HELIOSTAT_EVENTS"
REPORT, TRACEBACK = "HELIOSTAT_REPORT", "HELIOSTAT_TRACEBACK"

_OF_COMMANDS = (RUN_DIR, FIT, REPLAY, TRACE, KILLS, VERIFY, QUICK)

# Of commands that load TensorFlow: what it says of the processor is of no use, and Keras must not read its own file.
TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
WORKERS_TENSORFLOW = {**TENSORFLOW, "TF_CPP_MIN_LOG_LEVEL": "1"}  # who have logs for its warnings

# What makes oneDNN, XLA and CUDA choose other kernels than the hardware alone would.
_KERNEL_SETTINGS = (
    *("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("XLA_FLAGS", "TF_XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"),
)

_TRACKERS = ("MLFLOW_", "WANDB_", "DATABRICKS_")  # what their clients read, credentials among it

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWanted:
    """Compute microbatches of one step again, without applying them: step of the run, and one microbatch or all."""

    step: int
    microbatch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceWanted:
    """Record what workers do in the steps [first, last) of the run.

    Raises:
        ConfigurationError: these are no steps.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last:
            raise ConfigurationError(f"[{self.first}, {self.last}) holds no steps to trace.")


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSchedule:
    """Kill a random worker every `every_s` seconds (infinity: never); `seed` chooses whom.

    Raises:
        ConfigurationError: the interval is not positive.
    """

    every_s: float
    seed: int

    def __post_init__(self) -> None:
        if not self.every_s > 0:
            raise ConfigurationError(f"A worker cannot be killed every {self.every_s:g} s.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a command of `heliostat` wants of a script.

    Attributes:
        run_dir: the run folder, an absolute path.
        fit: which `fit` of the process is meant, counted from 1; None for all, which share `run_dir` as said above.
        replay: the step to compute again instead of training.
        trace: the steps to record.
        kills: how to disturb the workers.
        verify: which first steps to tell alone.
        quick: how little of a run to do.

    Raises:
        ConfigurationError: `run_dir` is relative, or `fit` below 1.
    """

    run_dir: Path
    fit: int | None = None
    replay: ReplayWanted | None = None
    trace: TraceWanted | None = None
    kills: KillSchedule | None = None
    verify: VerifyWanted | None = None
    quick: QuickWanted | None = None

    def __post_init__(self) -> None:
        if not self.run_dir.is_absolute() or (self.fit is not None and self.fit < 1):
            raise ConfigurationError(f"No fit {self.fit} can use the run folder {str(self.run_dir)!r}.")

    def variables(self) -> dict[str, str]:
        """The command as environment variables; `take_command` reads them."""
        found = {RUN_DIR: str(self.run_dir)}
        if self.fit is not None:
            found[FIT] = str(self.fit)
        if self.replay is not None:
            only = "" if self.replay.microbatch is None else f":{self.replay.microbatch}"
            found[REPLAY] = f"{self.replay.step}{only}"
        if self.trace is not None:
            found[TRACE] = f"{self.trace.first}:{self.trace.last}"
        if self.kills is not None:
            found[KILLS] = f"{self.kills.every_s!r}:{self.kills.seed}"
        if self.verify is not None:
            found[VERIFY] = self.verify.text()
        if self.quick is not None:
            found[QUICK] = str(self.quick.steps)
        return found


def take_command(environ: MutableMapping[str, str]) -> Command | None:
    """Read the command in an environment and remove it there; None without.

    Raises:
        EnvironmentVariableError: a variable is malformed, or the one with the run folder is missing.
    """
    given = {name: environ.pop(name) for name in _OF_COMMANDS if name in environ}
    if not given:
        return None

    def read(name: str, form: str, pattern: str, make: Callable[..., _Value]) -> _Value | None:
        if name not in given:
            return None
        found = re.fullmatch(pattern, given[name], re.DOTALL)
        if found is None:
            raise EnvironmentVariableError(name, given[name], form)
        try:
            return make(*found.groups())
        except (ConfigurationError, ValueError) as error:
            raise EnvironmentVariableError(name, given[name], form) from error

    run_dir = read(RUN_DIR, "an absolute path", "(/.*)", Path)
    if run_dir is None:
        raise EnvironmentVariableError(RUN_DIR, "", f"an absolute path, since {', '.join(given)} is set")
    return Command(
        run_dir=run_dir,
        fit=read(FIT, "a number from 1", "([1-9][0-9]*)", int),
        replay=read(REPLAY, "STEP or STEP:MICROBATCH, counted from 0", "([0-9]+)(?::([0-9]+))?", _replay_of),
        trace=read(TRACE, "FIRST:END, steps counted from 0", "([0-9]+):([0-9]+)", _trace_of),
        kills=read(KILLS, "SECONDS:SEED", "([0-9.e+-]+|inf):([0-9]+)", _kills_of),
        verify=read(VERIFY, VerifyWanted.FORM, VerifyWanted.PATTERN, VerifyWanted.of),
        quick=read(QUICK, "a number of steps", "([1-9][0-9]*)", lambda steps: QuickWanted(steps=int(steps))),
    )


def begin_fit() -> tuple[int, Command | None]:
    """Count a `fit` that begins: its number in this process, and the command if it is for this one.

    Raises:
        EnvironmentVariableError: the environment holds a malformed command.
    """
    command = _command_of_process()
    _process.num_fits += 1
    number = _process.num_fits
    return number, command if command is not None and command.fit in (None, number) else None


def quick_command() -> Command | None:
    """The command that wants a little of everything that this process does, None without.

    Raises:
        EnvironmentVariableError: the environment holds a malformed command.
    """
    command = _command_of_process()
    return command if command is not None and command.quick is not None else None


def _command_of_process() -> Command | None:
    found = take_command(os.environ)
    if found is not None:
        _process.command, _process.num_fits = found, 0
    return _process.command


def ask_for_plan() -> None:
    """Let the first task of a script that is run in this process be planned, and no more."""
    os.environ[PLAN] = "1"


def is_plan_waiting() -> bool:
    """Whether a plan was asked for, and no task has come yet."""
    return PLAN in os.environ


def is_plan_wanted() -> bool:
    """Whether a task that begins is to be planned, and not done; the variable is removed, and that stays so.

    Raises:
        EnvironmentVariableError: it has another value than 1.
    """
    given = os.environ.pop(PLAN, None)
    if given not in (None, "1"):
        raise EnvironmentVariableError(PLAN, given, "1, or not set")
    _process.plans = _process.plans or given is not None
    return _process.plans


def named_address() -> str | None:
    """The address of a Ray cluster that the user has set for all scripts, None without."""
    return os.environ.get(ADDRESS) or None


def wants_tracebacks() -> bool:
    """Whether errors of ours that nobody catches are to be shown with all frames."""
    return os.environ.get(TRACEBACK, "") not in ("", "0")


def wants_reports() -> bool:
    """Whether fits are to write a report when they have ended."""
    return os.environ.get(REPORT, "") != "0"


def name_workers(number: int) -> None:
    """Let trainers in this process have so many workers, whatever they are made with."""
    os.environ[WORKERS] = str(number)


def wanted_workers() -> int | None:
    """How many workers trainers are to have, whatever the script says; None for those that it says.

    Raises:
        EnvironmentVariableError: the variable holds no number.
    """
    given = os.environ.get(WORKERS)
    if not given:
        return None
    if not re.fullmatch("[0-9]+", given):
        raise EnvironmentVariableError(WORKERS, given, "a number of workers, or 0 for none")
    return int(given)


def links_wanted() -> Path | None:
    """What the links to run folders are to begin with in a job that is watched from elsewhere; None in all others.

    Raises:
        EnvironmentVariableError: it is no absolute path.
    """
    given = os.environ.get(EVENTS)
    if given and not os.path.isabs(given):
        raise EnvironmentVariableError(EVENTS, given, "an absolute path")
    return Path(given) if given else None


def is_job() -> bool:
    """Whether this process belongs to a Ray job."""
    return in_job(os.environ)


def job_home() -> Path:
    """Below which folder scripts that are Ray jobs keep what is theirs; raises ConfigurationError."""
    given = os.environ.get(HOME)
    if given and not os.path.isabs(given):
        raise ConfigurationError(f"The environment variable {HOME} is {given!r}; it must be an absolute path.")
    return Path(given) if given else Path.home() / "heliostat"


def quiet_tensorflow() -> None:
    """Set what TensorFlow and Keras shall find when this process loads them, unless the user has set it."""
    for name, value in TENSORFLOW.items():
        os.environ.setdefault(name, value)


def lets_tensorflow_talk() -> bool:
    """Whether the user wants to see all that TensorFlow says; where he has said nothing it leaves out information."""
    return os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1") == "0"


def kernel_settings() -> str:
    """The variables of this process that select kernels, as a shell would set them; empty without."""
    return " ".join(f"{name}={os.environ[name]}" for name in _KERNEL_SETTINGS if name in os.environ)


def hides_gpus() -> bool:
    """Whether this process is told to see no GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "NoDevFiles")


def tensorflow_threads() -> int | None:
    """The intra-op threads that TensorFlow is told to start by its own variable, None without."""
    found = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(found) if found.isdecimal() and int(found) else None


def mlflow_server() -> str | None:
    """The server that `MLFLOW_TRACKING_URI` names, None without."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def mlflow_experiment() -> tuple[str, str]:
    """Name and id of the experiment that MLflow's variables name; an id comes first, and MLflow's default one last."""
    number = os.environ.get("MLFLOW_EXPERIMENT_ID", "")
    return ("" if number else os.environ.get("MLFLOW_EXPERIMENT_NAME", "")), number or "0"


@contextlib.contextmanager
def mlflow_prints_nothing() -> Iterator[None]:
    """In the block MLflow's client prints no addresses of runs, which it does between the lines of a screen."""
    name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def hand_to_driver(runtime_env: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Set the variables of MLflow and W&B that workers were to have in this process, the driver's; the rest stays.

    Args:
        runtime_env: as Ray takes it.

    Returns:
        It, without them: workers need no credentials.
    """
    if not runtime_env or "env_vars" not in runtime_env:
        return runtime_env
    given = dict(runtime_env["env_vars"])
    own = {name: value for name, value in given.items() if name.startswith(_TRACKERS)}
    os.environ.update(own)
    return {**runtime_env, "env_vars": {name: value for name, value in given.items() if name not in own}}


def names_wandb_mode() -> bool:
    """Whether `WANDB_MODE` asks for one."""
    return bool(os.environ.get("WANDB_MODE"))


class _Process:
    """What this process was told, and how many fits it has begun since."""

    def __init__(self) -> None:
        self.command: Command | None = None
        self.num_fits = 0
        self.plans = False  # whoever catches the exit after a plan has not asked for more than plans


_process = _Process()


def _replay_of(step: str, microbatch: str | None) -> ReplayWanted:
    return ReplayWanted(step=int(step), microbatch=None if microbatch is None else int(microbatch))


def _trace_of(first: str, last: str) -> TraceWanted:
    return TraceWanted(first=int(first), last=int(last))


def _kills_of(every_s: str, seed: str) -> KillSchedule:
    return KillSchedule(every_s=float(every_s), seed=int(seed))
