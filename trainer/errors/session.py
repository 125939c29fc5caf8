"""Errors of sessions, in which a loop of the caller's asks for every step."""

from __future__ import annotations

from pathlib import Path

from .base import TrainerError

_LOOP = "for step in s.steps(epoch): s.train_on_batch(step)"


class SessionError(TrainerError):
    """The loop in a session asks for something out of turn, or for what a session does not do.

    The message says what was asked for, where the run is, and what to write. The run is paused with a checkpoint, as by
    every error in the block.
    """

    @classmethod
    def no_step(cls, method: str, given: object) -> SessionError:
        """Something else than a step was given, such as arrays.

        Args:
            method: "train_on_batch" or "test_on_batch".
            given: that.
        """
        steps = "validation_steps" if method == "test_on_batch" else "steps"
        return cls(
            f"{method} was given a {type(given).__name__}. It takes a step of s.{steps}(epoch), whose rows the workers "
            "read from the data that trainer.session was given. To change rows give it dataset.map(function)."
        )

    @classmethod
    def out_of_turn(cls, what: str, where: str) -> SessionError:
        """A step or an epoch does not come now.

        Args:
            what: was asked for, as code.
            where: the run is.
        """
        return cls(
            f"{what} does not come now: the run is {where}. Every epoch and every step comes once, in order: {_LOOP}. "
            "An epoch of fewer steps: trainer.session(..., steps_per_epoch=n)."
        )

    @classmethod
    def not_done(cls, method: str, step: int, epoch: int) -> SessionError:
        """The loop wants the next step, and has not done this one.

        Args:
            method: that does it.
            step: its number; `epoch` is the epoch's.
            epoch: see `step`.
        """
        return cls(
            f"Step {step} of epoch {epoch} (both counted from 0) was not done: the loop asks for the next step without "
            f"s.{method}(step). Every step is done once, in order. An epoch of fewer steps: "
            "trainer.session(..., steps_per_epoch=n)."
        )

    @classmethod
    def over(cls, epoch: int, epochs: int, run_dir: Path | None = None) -> SessionError:
        """The run has no such epoch.

        Args:
            epoch: that was asked for, counted from 0.
            epochs: how many there are.
            run_dir: of the run, if it is finished.
        """
        why = f"this session has epochs={epochs}" if run_dir is None else f"{run_dir} is finished, with {epochs}"
        return cls(
            f"There is no epoch {epoch} (counted from 0): {why}. To train more give "
            f"trainer.session(..., epochs={epoch + 1}); to begin anew another run_dir."
        )

    @classmethod
    def no_validation(cls) -> SessionError:
        """There is nothing to validate on."""
        return cls(
            "s.validation_steps: the session has no validation data. Give trainer.session(train, validation_data), or "
            "evaluate after the block: trainer.evaluate(data)."
        )

    @classmethod
    def in_an_epoch(cls, step: int, epoch: int) -> SessionError:
        """Metrics were to be reset in the middle of an epoch.

        Args:
            step: so many are done.
            epoch: its number.
        """
        return cls(
            f"s.reset_metrics() after {step} steps of epoch {epoch}: the metrics of a run are those of whole epochs. "
            "They begin anew with every epoch and with its validation. For shorter epochs give steps_per_epoch=."
        )

    @classmethod
    def rate(cls, given: object, why: str) -> SessionError:
        """The learning rate cannot be that, or cannot be set or read.

        Args:
            given: the rate.
            why: not.
        """
        return cls(
            f"s.learning_rate = {given!r}: {why}. It takes a number above 0, where build_model compiles the model with "
            "a number for learning_rate."
        )

    @classmethod
    def not_open(cls, what: str) -> SessionError:
        """A session is used before or after its block."""
        return cls(
            f"{what} outside of the session's block. Write `with trainer.session(...) as s:` around the loop; what "
            "came out is s.result, and trainer.evaluate, predict and save follow the block."
        )

    @classmethod
    def unfinished(cls, why: str) -> SessionError:
        """There is no result."""
        return cls(
            f"s.result: the run is not finished: {why}. It is when the block is left between two epochs; a loop that "
            "leaves it in the middle of one pauses the run, and the same command goes on."
        )

    @classmethod
    def busy(cls, what: str) -> SessionError:
        """The trainer works already: its workers do one thing at a time."""
        return cls(
            f"trainer.{what}() while this trainer trains: its workers do one thing at a time. Leave the session's "
            "block first (its validation data are for what is wanted meanwhile), or make another Trainer."
        )

    @classmethod
    def elsewhere(cls, address: str) -> SessionError:
        """The trainer's calls go to a job server, from where no loop of this process can be asked."""
        return cls(
            f"trainer.session on {address}: calls to a job server run there as jobs, and each step would ask this "
            "process, through a port that does not let it in. Submit the script that has the loop (heliostat submit), "
            'or write the loop as trainer.fit(..., loop="train_on_batch", callbacks=[...]).'
        )
