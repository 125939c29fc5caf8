"""One process of one baseline; `training.py` starts it. Rank 0 prints its result as one JSON line.

Every baseline trains on shuffled batches cut out of arrays in memory, input included, GPUs hidden.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from clock import StepClock  # type: ignore[import-not-found]
from models import (  # type: ignore[import-not-found]
    WORKLOADS,
    build_metrics,
    build_model,
    make_data,
)

# No run lasts this long: the clock stops it.
ENDLESS_EPOCHS = 1_000_000


def prepare(threads: int, cluster: str | None) -> Any:
    """Import TensorFlow on the CPU with that many threads, as a member of `cluster` (TF_CONFIG) if given."""
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND="tensorflow")
    if cluster:
        os.environ["TF_CONFIG"] = cluster
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


def keras_fit(name: str, seconds: float, *, jit_compile: bool) -> str:
    """Plain Keras 3 `fit` in one process with two threads."""
    prepare(2, None)
    import keras

    keras.utils.set_random_seed(0)
    model = build_model(name)
    model.jit_compile = jit_compile
    x, y = make_data(name)
    clock = StepClock(seconds)
    batch_size = WORKLOADS[name].global_batch_size
    stopper = stop_when_over(clock)
    model.fit(x, y, batch_size=batch_size, epochs=ENDLESS_EPOCHS, callbacks=[stopper], verbose=0)
    return clock.report(batch_size)


def mirrored(name: str, seconds: float, cluster: str) -> str:
    """`MultiWorkerMirroredStrategy` with a hand-written loop over a Keras 3 model: the way that works today."""
    tf = prepare(1, cluster)
    strategy = multi_worker_strategy(tf)
    import keras

    keras.utils.set_random_seed(0)
    batch_size = WORKLOADS[name].global_batch_size
    with strategy.scope():
        model = build_model(name)
        model.optimizer.build(model.trainable_variables)
        metrics = build_metrics(name)
    loss_function = keras.losses.SparseCategoricalCrossentropy(reduction="none")

    def replica_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            loss = tf.reduce_sum(loss_function(y, predicted)) / batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for metric in metrics:
            metric.update_state(y, predicted)
        return loss

    @tf.function
    def step(x: Any, y: Any) -> Any:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica_step, args=(x, y)), axis=None)

    clock = StepClock(seconds, rate_agreement(tf, strategy))
    for x, y in distributed_batches(tf, strategy, name):
        step(x, y)
        if clock.step_done():
            break
    return clock.report(batch_size)


def stop_when_over(clock: StepClock) -> Any:
    """Return a callback that counts steps and ends `fit` when the clock says so."""

    import keras

    class Stopper(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if clock.step_done():
                self.model.stop_training = True

    return Stopper()


def multi_worker_strategy(tf: Any) -> Any:
    """Return the strategy with TensorFlow's ring all-reduce."""
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.RING
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def distributed_batches(tf: Any, strategy: Any, name: str) -> Any:
    """Return each process's endless half of shuffled global batches, its rows gathered batch by batch.

    The cheapest input known to us: no file, no per-row element, every process holds and reads only its own rows.
    """
    x, y = make_data(name)
    batch_size = WORKLOADS[name].global_batch_size

    def of_process(context: Any) -> Any:
        rank, count = context.input_pipeline_id, context.num_input_pipelines
        own_x, own_y = tf.constant(x[rank::count]), tf.constant(y[rank::count])
        rows = tf.data.Dataset.range(len(own_y)).shuffle(len(own_y), seed=0).repeat()
        rows = rows.batch(context.get_per_replica_batch_size(batch_size), drop_remainder=True)
        return rows.map(lambda row: (tf.gather(own_x, row), tf.gather(own_y, row))).prefetch(2)

    return strategy.distribute_datasets_from_function(of_process)


def rate_agreement(tf: Any, strategy: Any) -> Any:
    """Return a function that averages a number over all processes."""

    @tf.function
    def average(value: Any) -> Any:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(tf.identity, args=(value,)), axis=None)

    return lambda rate: float(average(tf.constant(rate, tf.float32)))


def main() -> None:
    """Run the baseline named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("baseline", choices=("keras", "keras_jit", "mirrored"))
    parser.add_argument("model", choices=tuple(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--tf-config", help="the cluster and this process's place in it, as TF_CONFIG has it")
    arguments = parser.parse_args()
    name, seconds = arguments.model, arguments.seconds
    if arguments.baseline == "mirrored":
        line = mirrored(name, seconds, arguments.tf_config)
    else:
        line = keras_fit(name, seconds, jit_compile=arguments.baseline == "keras_jit")
    print(line, flush=True)


if __name__ == "__main__":
    main()
