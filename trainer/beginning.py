"""Where a run begins, and how its epochs and steps are counted: on from the fits before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .shipping import Shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """The state that a model is to be in: new from `build_model`, or as a fit has left it.

    Attributes:
        key: names the state among those of all trainers, so that a worker whose model is in it need not load it; empty
            for a new model's.
        location: where it is kept, a store of checkpoints; empty if it is not kept: then only workers that hold it can
            tell it to others.
        name: of the checkpoint there.
        prepared: the user's functions that have changed the model since `build_model` made it, in their order.
    """

    key: str = ""
    location: str = ""
    name: str = ""
    prepared: tuple[Shipped, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where a run begins: at the state in which the fit before it has left the model, or at a new model.

    Attributes:
        state: of the model.
        epochs: how many it was trained for, over all fits since it was new; `steps` likewise.
        sha256: hashes of its weights and optimizer state; None for a new model's.
        run_dir: the folder of the fit before.
    """

    state: ModelState = ModelState()
    epochs: int = 0
    steps: int = 0
    sha256: Mapping[str, str] | None = None
    run_dir: str = ""

    def identity(self) -> dict[str, object] | None:
        """What must be equal to go on with the run; None for a new model."""
        return None if self.sha256 is None else {"epochs": self.epochs, "steps": self.steps, **self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """The numbers that row orders and random seeds come from: they count on over the fits of a trainer.

    Attributes:
        first_epoch: number of the run's first epoch, as callbacks and files have it.
        first_pass: the pass that this epoch is, or begins.
        first_step: the number of its first step.
        epochs_per_pass: the epochs that a pass over the data is cut into (`BatchPlan`).
    """

    first_epoch: int = 0
    first_pass: int = 0
    first_step: int = 0
    epochs_per_pass: int = 1

    def pass_of(self, epoch: int) -> int:
        """Which pass over the data an epoch is, or is a part of."""
        return self.first_pass + (epoch - self.first_epoch) // self.epochs_per_pass

    def part_of(self, epoch: int) -> int:
        """Which part of that pass it is."""
        return (epoch - self.first_epoch) % self.epochs_per_pass

    def seed_step(self, epoch: int, step: int, num_steps: int) -> int:
        """The step that random seeds come from: step `step` of an epoch that has `num_steps`."""
        return self.first_step + (epoch - self.first_epoch) * num_steps + step
