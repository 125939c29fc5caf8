"""The same kills under Ray Train's `TensorflowTrainer`: legacy Keras, a checkpoint per epoch; `recovery.py` starts it.

    python recovery_ray_train.py MODEL WORKERS KILLS

Each kill is a SIGKILL of a random worker process in the middle of an epoch. Reported: the time until any step is done
again, and until the step is done that was interrupted (everything since the last checkpoint is computed again).
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

QUIET_S = 4.0
ENDLESS_EPOCHS = 1_000_000


def train_loop(config: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    os.environ.update(TF_USE_LEGACY_KERAS="1", CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")
    import models  # type: ignore[import-not-found]
    import tensorflow as tf
    import tf_keras  # type: ignore[import-untyped,import-not-found]
    from ray import train

    tf.config.threading.set_intra_op_parallelism_threads(1)
    name, notes = config["model"], Path(config["notes"])
    rank, count = train.get_context().get_world_rank(), train.get_context().get_world_size()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = models.build_model(name, tf_keras)
    first_epoch = 0
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            first_epoch = json.loads(Path(folder, "epoch.json").read_text()) + 1
            model.load_weights(str(Path(folder, "model")))
    x, y = models.make_data(name)
    batch_size = models.WORKLOADS[name].global_batch_size
    file = (notes / f"{os.getpid()}.jsonl").open("a", buffering=1)

    class Note(tf_keras.callbacks.Callback):
        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            step = self.epoch * models.STEPS_PER_EPOCH + batch
            file.write(json.dumps({"time": time.time(), "pid": os.getpid(), "rank": rank, "step": step}) + "\n")
            if (notes / "over").exists():
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_weights(str(Path(folder, "model")))  # every worker takes part in the strategy's save
                Path(folder, "epoch.json").write_text(json.dumps(epoch))
                kept = train.Checkpoint.from_directory(folder) if rank == 0 else None
                train.report({"epoch": epoch}, checkpoint=kept)

    rows = tf.data.Dataset.from_tensor_slices((x[rank::count], y[rank::count])).repeat()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    model.fit(
        rows.batch(batch_size // count * count).with_options(options),
        steps_per_epoch=models.STEPS_PER_EPOCH,
        initial_epoch=first_epoch,
        epochs=ENDLESS_EPOCHS,
        callbacks=[Note()],
        verbose=0,
    )


def read(notes: Path) -> list[dict[str, Any]]:
    """All steps that workers have done, in order of time."""
    steps = []
    for path in notes.glob("*.jsonl"):
        steps += [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return sorted(steps, key=lambda step: step["time"])


def kill_again_and_again(notes: Path, kills: int, done: list[dict[str, float]]) -> None:
    """Kill, wait until the interrupted step is done, and note how long that took."""
    chance = random.Random(0)
    while len(done) < kills:
        time.sleep(QUIET_S + 2 * chance.random())
        steps = read(notes)
        recent = [step for step in steps if step["time"] > time.time() - 2.0]
        if not recent:
            continue
        reached = max(step["step"] for step in recent)
        at = time.time()
        os.kill(chance.choice(sorted({step["pid"] for step in recent})), signal.SIGKILL)
        while True:
            time.sleep(0.1)
            after = [step for step in read(notes) if step["time"] > at + 0.5]
            if any(step["step"] > reached for step in after):
                break
            if time.time() - at > 300:
                done.append({"never": 1.0})
                (notes / "over").touch()
                return
        again = next(step["time"] for step in after if step["step"] > reached)
        done.append({"first_step_s": after[0]["time"] - at, "interrupted_step_s": again - at})
    (notes / "over").touch()


def main() -> None:
    """Run the baseline and print its result as one JSON line."""
    model, workers, kills = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    import cloudpickle
    import models
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    cloudpickle.register_pickle_by_value(models)
    ray.cloudpickle.register_pickle_by_value(models)
    ray.init(num_cpus=workers + 2, include_dashboard=False, log_to_driver=False, logging_level="error")
    done: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="ray-train-bench-") as folder:
        notes = Path(folder) / "notes"
        notes.mkdir()
        threading.Thread(target=kill_again_and_again, args=(notes, kills, done), daemon=True).start()
        TensorflowTrainer(
            train_loop,
            train_loop_config={"model": model, "notes": str(notes)},
            scaling_config=ScalingConfig(num_workers=workers),
            run_config=RunConfig(
                storage_path=folder,
                failure_config=FailureConfig(max_failures=-1),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        ).fit()
        ray.shutdown()
    complete = [each for each in done if "never" not in each]
    result: dict[str, Any] = {"kills": len(done), "never_went_on": len(done) - len(complete)}
    for name in ("first_step_s", "interrupted_step_s"):
        values = sorted(each[name] for each in complete)
        if values:
            result[name] = {"p50": round(statistics.median(values), 2), "max": round(values[-1], 2)}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
