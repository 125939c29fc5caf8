"""What plain Keras computes on one device, and comparisons of a run with it."""

from __future__ import annotations

import numpy as np
from heliostat.trainer.engine.layout import microbatch_seeds


def fitted(build, *arrays, **arguments):
    """History and weights of plain Keras after a fit, which takes the rows in their order."""
    model = build()
    history = model.fit(*arrays, **{"shuffle": False, "verbose": 0} | arguments).history
    return history, model.get_weights()


def draw_as_microbatch(generators, seed, step):
    """Let seed generators stand where those of a run's first microbatch stand at a step."""
    for generator, state in zip(generators, microbatch_seeds(seed, step, 0, len(generators)), strict=True):
        generator.state.assign(state)


def same_history(got, want, rtol=1e-10):
    assert got.keys() == want.keys()
    for name, values in want.items():
        np.testing.assert_allclose(got[name], values, rtol=rtol, err_msg=name)


def same_weights(got, want, rtol=1e-10):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-12)


def largest_difference(left, right, least=1e-12) -> float:
    """Of two lists of weights, relatively; by `least` where a weight is smaller."""
    return max(float(np.linalg.norm(a - b) / max(np.linalg.norm(b), least)) for a, b in zip(left, right, strict=True))
