"""What verdicts are worth: twenty runs made slow on purpose, and whether the cause and its gain are found.

    python scripts/benchmarks/verdict.py [--seed 0] [--rounds 2] [--beside 2] [--only "network" ...] [--save]

What is planted, and how much of it, is drawn by the seed. The truth is measured, not planted: the same run is made
again without each planted cause, in turn with the run itself, and what that brings (seconds per row, the least
disturbed of all rounds) is the cause's gain. Below 10 % the run is healthy; of two causes the larger one counts. Then
what the verdict proposes is tried where that can be done here, and what it brings is set beside what was promised. The
verdict is that on the first run of each case, which has seen none of the others.

The runs are those of `verdict_process.py`: workers as threads, a simulated device. A network needs root.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import run  # type: ignore[import-not-found]
from verdict_process import ITSELF, NUM_PIXELS, REMEDIED, Conditions, measured  # type: ignore[import-not-found]

LEAST_GAIN, WITHIN = 1.1, 1.5
BUSY = 1.1  # a step of the simulated device is about so much longer than what it computes
LARGER_BATCH = 16
NETWORK_WIDTH = 256
NO_CAUSE = {
    "input": {"input_row_s": 0.0},
    "slow worker": {"slowness": 1.0},
    "network": {"rate": ""},
    "callbacks": {"hook": "", "hook_s": 0.0},
    "checkpoints": {"save_every": 0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A run with what is planted in it; `without` is the same run without each of these causes."""

    name: str
    planted: Conditions
    without: Mapping[str, Conditions]


# -- drawing ----------------------------------------------------------------------------------------------------------

Plant = Callable[[Conditions, float, random.Random], dict[str, Any]]
"""Fields that make a step so many seconds longer, or so."""


def step_s(given: Conditions) -> float:
    """About how long a step takes with nothing planted."""
    return float(BUSY * given.batch / given.workers * given.row_s)


def slow_input(given: Conditions, extra_s: float, draw: random.Random) -> dict[str, Any]:
    """Rows are read ahead while others are computed: only what is longer than that counts."""
    return {"input_row_s": given.row_s + extra_s * given.workers / given.batch}


def slow_input_of_one(given: Conditions, extra_s: float, draw: random.Random) -> dict[str, Any]:
    return slow_input(given, extra_s, draw) | {"input_of_one": True}


def slow_worker(given: Conditions, extra_s: float, draw: random.Random) -> dict[str, Any]:
    return {"slowness": 1 + BUSY * extra_s / step_s(given)}


def slow_network(given: Conditions, extra_s: float, draw: random.Random) -> dict[str, Any]:
    """Both workers send half of the gradient and half of the sum, over one limited loopback."""
    weights = NUM_PIXELS * NETWORK_WIDTH + NETWORK_WIDTH**2
    return {"width": NETWORK_WIDTH, "rate": f"{2 * 4 * weights * 8 / extra_s / 1000:.0f}kbit"}


def slow_hook(given: Conditions, extra_s: float, draw: random.Random) -> dict[str, Any]:
    hook = draw.choice(("on_train_batch_end", "on_train_batch_begin", "on_epoch_end"))
    steps = given.rows // given.batch if hook == "on_epoch_end" else 1
    return {"hook": hook, "hook_s": extra_s * steps}


def slow_copies(given: Conditions, extra_s: float, draw: random.Random) -> dict[str, Any]:
    every = draw.choice((1, 2, 4))
    return {"save_every": every, "copy_s": extra_s * every}


PLANTS: Mapping[str, tuple[str, Plant]] = {
    "input": ("input", slow_input),
    "input of one worker": ("input", slow_input_of_one),
    "slow worker": ("slow worker", slow_worker),
    "network": ("network", slow_network),
    "callbacks": ("callbacks", slow_hook),
    "checkpoints": ("checkpoints", slow_copies),
}
LARGE, MEDIUM, SMALL, NONE = (1.3, 2.5), (1.2, 1.6), (1.14, 1.22), (1.03, 1.06)
# Which plants, and between which gains of each.
WANTED: Sequence[tuple[tuple[str, tuple[float, float]], ...]] = (
    (("input", LARGE),),
    (("input", MEDIUM),),
    (("input of one worker", LARGE),),
    (("network", LARGE),),
    (("network", MEDIUM),),
    (("slow worker", LARGE),),
    (("slow worker", MEDIUM),),
    (("callbacks", LARGE),),
    (("callbacks", MEDIUM),),
    (("checkpoints", LARGE),),
    (("checkpoints", MEDIUM),),
    (("input of one worker", MEDIUM), ("callbacks", LARGE)),
    (("slow worker", LARGE), ("checkpoints", MEDIUM)),
    (("callbacks", NONE),),
    (("slow worker", SMALL),),
    (("input", NONE),),
    (("checkpoints", SMALL),),
    (),
)
SMALL_BATCHES = (4, 16)  # rows of a step, in two further cases


def cases(seed: int) -> list[Case]:
    """The twenty cases of a seed."""
    draw = random.Random(seed)
    return [*(_planted(plants, draw) for plants in WANTED), *(_small(batch, draw) for batch in SMALL_BATCHES)]


def _planted(plants: Sequence[tuple[str, tuple[float, float]]], draw: random.Random) -> Case:
    given = Conditions(row_s=draw.uniform(0.006, 0.01), microbatches=draw.choice((4, 8)))
    found = given
    for name, (low, high) in plants:
        extra_s = (draw.uniform(low, high) - 1) * step_s(given)
        found = replace(found, **PLANTS[name][1](given, extra_s, draw))
    causes = [PLANTS[name][0] for name, _ in plants]
    return Case(
        name=" + ".join(name for name, _ in plants) or "nothing",
        planted=found,
        without={cause: replace(found, **NO_CAUSE[cause]) for cause in causes},
    )


def _small(batch: int, draw: random.Random) -> Case:
    """Few rows in a step, and a quick device: what a step costs in any case is most of it."""
    found = Conditions(batch=batch, microbatches=2, rows=640 * batch, row_s=draw.uniform(0.0001, 0.0003))
    return Case(
        name="small batches",
        planted=found,
        without={"small batches": replace(found, batch=LARGER_BATCH * batch)},
    )


# -- judging ----------------------------------------------------------------------------------------------------------


def judged(case: Case, rounds: int) -> run.Found:
    """Run a case and what it is compared with."""
    found = measured(case.planted, case.without, rounds)
    verdict = found["verdict"]
    row_s = {name: min(values) for name, values in found["row_s"].items()}
    gains = {cause: row_s[ITSELF] / row_s[cause] for cause in case.without}
    cause, gain = max(gains.items(), key=lambda each: each[1], default=("healthy", 1.0))
    truth = cause if gain >= LEAST_GAIN else "healthy"
    row = {
        "planted": case.name,
        "gain without": ", ".join(f"{name} {value:.2f}" for name, value in gains.items()),
        "truth": truth,
        "verdict": verdict["cause"],
        "right": "yes" if verdict["cause"] == truth else "no",
        "remedy": verdict["remedy"],
        "promised": round(verdict["gain"], 2) if verdict["remedy"] else "",
        "brought": round(row_s[ITSELF] / row_s[REMEDIED], 2) if REMEDIED in row_s else "",
    }
    print(json.dumps(row | {"said": verdict["sentence"], "gains": verdict["gains"], **found["row_s"]}), file=sys.stderr)
    return row


def kept_promise(row: run.Found) -> bool | None:
    """Whether what was promised is what came, within a factor; None where it was not tried."""
    if not row["brought"] or not row["promised"]:
        return None
    return bool(abs(math.log(row["promised"] / row["brought"])) <= math.log(WITHIN))


def main() -> None:
    """Judge all cases."""
    parser = run.parser_of(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--beside", type=int, default=2, help="so many cases beside each other")
    parser.add_argument("--only", nargs="+", default=[], help="what is planted")
    chosen = parser.parse_args()
    wanted = [case for case in cases(chosen.seed) if not chosen.only or case.name in chosen.only]
    with ThreadPoolExecutor(chosen.beside) as threads:
        rows = list(threads.map(lambda case: judged(case, chosen.rounds), wanted))
    tried = [kept for row in rows if (kept := kept_promise(row)) is not None]
    found = {
        "rows": rows,
        "right": sum(row["right"] == "yes" for row in rows),
        "of": len(rows),
        "promises_kept": sum(tried),
        "promises_tried": len(tried),
    }
    run.finish(chosen, "verdict", found)


if __name__ == "__main__":
    main()
