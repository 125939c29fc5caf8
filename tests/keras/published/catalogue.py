"""The models, what they are trained on, and what forbids that two microbatches be one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from ..against import Rows
from . import autoencoders, contrastive, gans, sequences, teachers, tuning


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model.

    Attributes:
        build: builds it.
        rows: what it is trained on.
        forbids: why two microbatches are not one batch; empty where they are.
        phases: how many its step has.
        within: the largest relative difference, 1e-6 where Keras computes in float32.
        zero: words in the paths of weights whose exact gradient is zero.
        epochs: of a fit.
        batch: rows of a step: all of them where a step returns bare numbers, of which Keras shows the last batch's.
    """

    build: Callable[[], keras.Model]
    rows: Callable[[], Rows]
    forbids: str = ""
    phases: int = 1
    within: float = 1e-10
    zero: tuple[str, ...] = ()
    epochs: int = 2
    batch: int = 8


DRAWS, PAIRS, MASKS = "it draws at random", "it compares the rows of a batch", "a mask divides by the words of a batch"

MODELS: dict[str, Published] = {
    "dcgan": Published(build=gans.dcgan, rows=gans.pictures, forbids=DRAWS, phases=2),
    "wgan_gp": Published(build=gans.wgan_gp, rows=gans.pictures, forbids=DRAWS, phases=3, batch=24, epochs=4),
    "vae": Published(build=autoencoders.vae, rows=autoencoders.vectors, forbids=DRAWS),
    "vq_vae": Published(build=autoencoders.vq_vae, rows=autoencoders.vectors),
    "vq_vae_by_averages": Published(build=autoencoders.vq_vae_by_averages, rows=autoencoders.vectors_twice, phases=2),
    "mean_teacher": Published(build=teachers.mean_teacher, rows=teachers.labelled, forbids=DRAWS, batch=24, epochs=4),
    "distillation": Published(build=teachers.distillation, rows=teachers.labelled),
    "simclr": Published(build=contrastive.simclr, rows=teachers.labelled, forbids=PAIRS, phases=2),
    "siamese": Published(build=contrastive.siamese, rows=contrastive.pairs),
    "ctc_endpoint": Published(build=sequences.ctc_endpoint, rows=sequences.captchas, within=1e-6),
    "masked_lstm": Published(build=sequences.masked_lstm, rows=sequences.tagged, forbids=MASKS),
    "transfer": Published(build=tuning.transfer, rows=tuning.pictures),
    "lora": Published(build=tuning.lora, rows=tuning.words, within=1e-6),
}
"""By name; transfer learning goes on with a second fit (`tuning.unfreeze`)."""
