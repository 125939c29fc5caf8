"""How a microbatch's numbers lie in one vector, what it weighs in its step, and which random seeds it draws from.

A step is a sum over microbatches. All that one of them adds to it lies in a *vector*: a few one-dimensional arrays, its
buckets, alike on every worker.

    float     gradients of variables, several joined or a large one by itself
    float     new values of floating-point state that the step assigns (moving averages), joined
    sums      float64: changes of metrics, logged scalars with their rows
    maxima    float64: metrics that merge by maximum or, negated, minimum; integer state, and the same negated

The first are multiplied by the microbatch's weight before they are added, so that a plain sum is the mean over all rows
of the batch, whatever the sizes of its microbatches. Integers have no mean: all microbatches must agree on them, and
they do where the maximum of v is minus the maximum of -v.

Why buckets. One array per variable is simplest, and slow where variables are many and small: each costs a view, an
addition at every node of the tree, an entry in every message, and a handle in the update. One array for all of them
costs a copy of the whole gradient after the backward pass, and another where the update cuts it up; for large variables
these take longer than the handles saved. So variables that are small on average (`MAX_MEAN_ELEMENTS`) are joined in one
bucket, which the flat update (`flat.py`) takes as it is; else every large one stays alone, and small neighbours are
joined. No bit depends on that: whatever happens to a bucket happens to each of its elements by itself.

Not done: buckets of equal bytes that travel while the backward pass still runs, as in PyTorch's
DistributedDataParallel (Li et al., VLDB 2020) and Horovod's tensor fusion (Sergeev and Del Balso, 2018). A traced
function returns all of its outputs at once, so there is nothing to send before its end; and what workers send each
other is cut by bytes further down, across buckets (`cluster/allreduce/slices.py`). Nor are variables reordered by
size: those joined would no longer be neighbours, and the flat update wants the optimizer's order.

Nothing here needs TensorFlow: the driver, which words errors about gradients, must start without it.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, islice, pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from heliostat.cluster.vectors import BucketOp, Layout, Vector
from ml_dtypes import bfloat16

from ..errors import UnsupportedModelError
from ..pass_messages import BUCKET_OPS
from ..trainer_config import GradientDtype

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from .metrics import MetricLayout
    from .model import BuiltModel

# Larger variables, on average, are not joined: joining and handing out are copies, which then cost more than they save.
MAX_MEAN_ELEMENTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Part:
    """Something that has a part of a float bucket: the path of a variable, or what else tells users what it is."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorLayout:
    """What the vector of a microbatch holds, in order.

    The float buckets have the weights' dtype (`rounded` changes that of gradients): gradients of `gradients`, then new
    values of `float_state`, each multiplied by the microbatch's weight; `variables_per_bucket` says how many share a
    bucket, and there is an empty one if there are none. The last two, one float64 that is summed and one of which the
    maximum is taken, are described by `metrics`.

    A phase of a step with several holds the same kinds of numbers, but not of variables in the model's order: its parts
    are named, and where they go is for `new_values.py`.

    Attributes:
        gradients: indices into `BuiltModel.trainable` of the variables that have a gradient.
        float_state: indices into `BuiltModel.non_trainable` of the floating-point state the step assigns.
        int_state: likewise of integer state the step assigns; all microbatches must agree on it.
        parts: what lies in the float buckets, in order.
        num_gradient_buckets: how many of these come before those of state.
        variables_per_bucket: how many parts are joined in each float bucket, see `choose_buckets`.
        agreed_names: of the integer state on which all microbatches must agree.
        metrics: metric changes and logged scalars.
        buckets: dtype and length of each bucket.
    """

    gradients: tuple[int, ...] = ()
    float_state: tuple[int, ...] = ()
    int_state: tuple[int, ...] = ()
    parts: tuple[Part, ...]
    num_gradient_buckets: int
    variables_per_bucket: tuple[int, ...]
    agreed_names: tuple[str, ...]
    metrics: MetricLayout
    buckets: Layout

    @property
    def float_buckets(self) -> Layout:
        """Dtype and length of each float bucket."""
        return self.buckets[:-2]

    @property
    def ops(self) -> tuple[BucketOp, ...]:
        """How each bucket is summed."""
        return BUCKET_OPS[:1] * len(self.float_buckets) + BUCKET_OPS[1:]

    def rounded(self, gradient_dtype: GradientDtype | None) -> VectorLayout:
        """The layout in which vectors are summed: gradients in another dtype, None leaves them as they are.

        Every node of the tree is rounded then. Moving averages stay exact: a small step of theirs would be rounded away
        every time.

        Raises:
            UnsupportedModelError: gradients are to be rounded, and are not float32.
        """
        if gradient_dtype is None:
            return self
        dtype, _ = self.buckets[0]
        if dtype != np.float32:
            raise UnsupportedModelError(
                f"gradient_dtype='bfloat16' rounds float32 gradients, and this model's are {dtype.name}. Leave "
                "gradient_dtype out, or use float32 weights."
            )
        num_gradients = self.num_gradient_buckets
        gradients = tuple((np.dtype(bfloat16), length) for _, length in self.buckets[:num_gradients])
        return replace(self, buckets=gradients + self.buckets[num_gradients:])

    def leaf(self, vector: Vector) -> Vector:
        """What a microbatch computed, in this layout's dtypes: new memory where they differ."""
        return tuple(bucket.astype(dtype, copy=False) for bucket, (dtype, _) in zip(vector, self.buckets, strict=True))


def vector_layout(
    built: BuiltModel,
    gradients: tuple[int, ...],
    float_state: tuple[int, ...],
    int_state: tuple[int, ...],
    metrics: MetricLayout,
) -> VectorLayout:
    """The layout of a vector that holds these.

    Args:
        built: the model.
        gradients, float_state, int_state, metrics: see `VectorLayout`.

    Returns:
        gradients joined as `choose_buckets` says, moving averages in one bucket.
    """
    trained = [Part(v.path, tuple(v.shape)) for v in (built.trainable[i] for i in gradients)]
    state = [Part(v.path, tuple(v.shape)) for v in (built.non_trainable[i] for i in float_state)]
    counts, float_buckets = float_buckets_of(trained, state, built.float_dtype)
    float64 = np.dtype(np.float64)
    buckets = (*float_buckets, (float64, metrics.num_sums), (float64, metrics.num_maxima))
    return VectorLayout(
        gradients=gradients,
        float_state=float_state,
        int_state=int_state,
        parts=(*trained, *state),
        num_gradient_buckets=len(float_buckets) - (1 if float_state else 0),
        variables_per_bucket=counts,
        agreed_names=tuple(built.non_trainable[i].path for i in int_state),
        metrics=metrics,
        buckets=buckets,
    )


def float_buckets_of(
    gradients: Sequence[Part], state: Sequence[Part], dtype: np.dtype
) -> tuple[tuple[int, ...], tuple[tuple[np.dtype, int], ...]]:
    """How many parts share each float bucket, and dtype and length of each.

    Args:
        gradients: joined as `choose_buckets` says.
        state: all in the last bucket.
        dtype: of all.
    """
    counts = (*choose_buckets([part.size for part in gradients]), *((len(state),) if state else ()))
    ends = list(accumulate((0, *(part.size for part in (*gradients, *state)))))
    borders = [ends[at] for at in accumulate((0, *counts))]
    return counts, tuple((dtype, stop - start) for start, stop in pairwise(borders)) or ((dtype, 0),)


def small_on_average(sizes: Sequence[int]) -> bool:
    """Whether variables of these sizes are better joined into one vector."""
    return sum(sizes) <= MAX_MEAN_ELEMENTS * len(sizes)


def choose_buckets(sizes: Sequence[int]) -> tuple[int, ...]:
    """How many neighbours among variables of these sizes have their gradients joined in one bucket.

    All of them where variables are small on average, as a flat update wants them; otherwise the large ones stay by
    themselves.
    """
    if small_on_average(sizes):
        return (len(sizes),) if sizes else ()
    large = groupby(enumerate(sizes), key=lambda each: each[0] if each[1] > MAX_MEAN_ELEMENTS else -1)
    return tuple(len(list(neighbours)) for _, neighbours in large)


Joined = TypeVar("Joined", "keras.Variable", Part)


def split_by_variable(
    buckets: Sequence[np.ndarray | tf.Tensor], variables_per_bucket: Sequence[int], variables: Sequence[Joined]
) -> Iterator[tuple[Joined, np.ndarray | tf.Tensor]]:
    """Every variable with its part of the buckets that it is joined in.

    Args:
        buckets: arrays or tensors ``[elements]``.
        variables_per_bucket: how many variables are joined in each.
        variables: these variables, or what stands for them, in order.

    Yields:
        a variable, and its elements as one dimension: a view of an array, a slice of a tensor.
    """
    left = iter(variables)
    for bucket, count in zip(buckets, variables_per_bucket, strict=False):  # where there is none, one empty bucket
        at = 0
        for variable in islice(left, count):
            size = math.prod(variable.shape)
            yield variable, bucket[at : at + size]
            at += size


def microbatch_weights(
    reduction: str, rows: int, batch_rows: int, weight: float = 0.0, batch_weight: float = 0.0
) -> np.ndarray:
    """The four factors by which one microbatch's results are multiplied before they are summed.

    Args:
        reduction: how the loss reduces over rows.
        rows: rows of the microbatch.
        batch_rows: rows of the global batch.
        weight: sum of the microbatch's sample weights, used by ``mean_with_sample_weight`` only.
        batch_weight: sum of the global batch's sample weights; 0 where there are none, or all are 0: then Keras divides
            by rows, and a loss of 0 stays 0 by any factor.

    Returns:
        float64 ``[4]``:

        0. factor of gradients and of logged losses: rows/batch_rows for losses that are means over rows, 1 for
           ``sum``, weight/batch_weight for ``mean_with_sample_weight``;
        1. factor of moving averages, rows/batch_rows;
        2. factor of the loss tracker's total. Keras counts a microbatch's loss `rows` times; the batch's loss, counted
           `batch_rows` times, is the sum over microbatches of batch_rows * factor 0 * loss. Exactly 1 for means;
        3. rows, the count that goes with it.
    """
    share = rows / batch_rows
    if reduction == "sum":
        return np.array([1.0, share, batch_rows / rows, rows])
    if reduction == "mean_with_sample_weight" and batch_weight:
        factor = weight / batch_weight
        return np.array([factor, share, factor * (batch_rows / rows), rows])
    return np.array([share, share, 1.0, rows])


def microbatch_seeds(seed: int, step: int, microbatch: int, num_generators: int) -> np.ndarray:
    """The states of all seed generators at the start of one microbatch.

    Args:
        seed: seed of the run.
        step: step of the run, counted from 0 over all epochs.
        microbatch: index of the microbatch in its step.
        num_generators: how many `keras.random.SeedGenerator` the model holds.

    Returns:
        int64 ``[num_generators, 2]``: 62 hashed bits (blake2b), and 0, the counter that
        `SeedGenerator.next` increments at every draw.
    """
    seeds = np.zeros((num_generators, 2), np.int64)
    for generator in range(num_generators):
        key = struct.pack("<qqqq", seed, step, microbatch, generator)
        digest = hashlib.blake2b(key, digest_size=8, person=b"heliostat-seed").digest()
        seeds[generator, 0] = int.from_bytes(digest, "little") >> 2
    return seeds
