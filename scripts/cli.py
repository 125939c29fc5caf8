"""The command ``heliostat``: arguments and options, one function per command; the work is in a module for each.

Those modules are imported when their command runs: TensorFlow and Ray take seconds to load, ``--help`` must not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .commandline import (
    Commands,
    LocalPath,
    Place,
    as_json,
    bytes_shown,
    console,
    progress_screen,
    show_lines,
    show_versions,
    shows_tracebacks,
)
from .run_commands import COMMANDS

# As in heliostat.data.conversion.open_source, which is not loaded for --help.
_SOURCE_KINDS = [
    *("npz", "npy", "csv", "json", "parquet", "arrow", "huggingface", "tfrecord", "images", "keras", "idx", "dataset")
]
_JSON = click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object instead.")
_SCRIPT = click.argument("script", type=LocalPath(is_folder=False, exists=True))
_ARGUMENTS = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
_RUN_DIR = click.argument("run_dir", type=LocalPath())


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--traceback", is_flag=True, help="Show tracebacks of Heliostat's errors, the workers' among them.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_versions, help="Show versions."
)
def main(traceback: bool) -> None:
    """Train Keras models on many workers, with the bits of one."""


@main.command()
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="0: in this process, no Ray.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True, help="Devices per worker.")
@click.option(
    "--loop",
    type=click.Choice(["fit", "train_on_batch", "custom", "all"]),
    default="all",
    show_default=True,
    help="The way to train.",
)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Epochs of every way.")
@click.option("--run-dir", type=LocalPath(), help="Folder of data and runs.  [default: runs/demo-<time>]")
def demo(workers: int, replicas: int, loop: Any, epochs: int, run_dir: Path | None) -> None:
    """Train a text classifier in three ways and compare them.

    The texts are docstrings of the Python packages on this machine, the classes their packages: real data
    without a download. All ways share the same workers; fit and custom end with the same weights.
    """
    from heliostat.trainer.environment import quiet_tensorflow

    quiet_tensorflow()
    from heliostat.trainer.config import LOOP_NAMES

    from .demo.demo import DemoSettings, run_demo

    settings = DemoSettings(
        workers=workers,
        replicas=replicas,
        loops=LOOP_NAMES if loop == "all" else (loop,),
        epochs=epochs,
        run_dir=run_dir,
    )
    run_demo(settings, console())


# Options after the script's name are the script's.
@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--plan", is_flag=True, help="Say how its first fit, evaluate or predict would be computed; end there.")
@click.option("--quick", is_flag=True, help="Do two steps of everything first, and leave no run behind.")
@click.option("--workers", type=click.IntRange(0), help="How many, whatever SCRIPT says.  [default: as it says]")
@_SCRIPT
@_ARGUMENTS
def run(plan: bool, quick: bool, workers: int | None, script: Path, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT with ARGUMENTS, as `python SCRIPT` does.

    The traceback of an error begins in the script; `heliostat --traceback run` shows all of one of Heliostat's. The
    script runs with the Python that Heliostat is installed in. Options go before SCRIPT; what follows it belongs to the
    script.

    The exit status is the script's; 1 after an error; and 75 when the run was paused, by Ctrl-C, SIGTERM or max_time_s:
    then `heliostat resume`, or the same command with the same run_dir, goes on with it.

    With --quick all of the script runs, with little to do: of every fit two steps, validation, a checkpoint, two more
    steps from that checkpoint, and the model saved; of every evaluate two steps. Run folders and callbacks' files go
    to a temporary folder. It says how long each part took and what failed; the exit status is 0 if nothing did.
    """
    from heliostat.trainer.environment import name_workers

    from .commands.run import plan_script, run_script

    if "--plan" in arguments and not plan:
        click.echo(f"--plan behind the script is the script's own; for a plan: heliostat run --plan {script}", err=True)
    if plan and quick:
        raise click.UsageError("--plan computes nothing, and --quick a little: give one of them.")
    if workers is not None:
        name_workers(workers)
    if quick:
        from .commands.quick import quick as run_quickly

        raise SystemExit(run_quickly(script, arguments, console(), show_traceback=shows_tracebacks()))
    (plan_script if plan else run_script)(script, arguments, show_traceback=shows_tracebacks())


@main.command()
@_JSON
@click.argument("folders", nargs=-1, type=LocalPath(exists=True))
def runs(json_wanted: bool, folders: tuple[Path, ...]) -> None:
    """List the runs in FOLDERS (by default in ./runs) and one level below.

    Shows the state of every run, its epochs, last loss and validation metric, its workers and how often one was lost,
    its last checkpoint, and when it wrote something last.
    """
    from .commands.runs import show_runs

    show_runs(folders or (Path("runs"),), console(), json_wanted=json_wanted)


@main.command()
@click.option("--report", is_flag=True, help="Write report.html and summary.json anew, as the run stands now.")
@_JSON
@_RUN_DIR
def show(report: bool, json_wanted: bool, run_dir: Path) -> None:
    """Show what came out of the run in RUN_DIR, what limited it, its workers and its last events.

    What it prints with --json is what summary.json in the run folder has; report.html beside it has curves, too.
    """
    from .commands.show import show as look

    look(run_dir, console(), json_wanted=json_wanted, report_wanted=report)


@main.command()
@click.option("--tolerance", type=click.FloatRange(0), default=1e-3, show_default=True, help="For metrics; relative.")
@_JSON
@click.argument("a", type=LocalPath())
@click.argument("b", type=LocalPath())
def diff(a: Path, b: Path, tolerance: float, json_wanted: bool) -> None:
    """Compare the runs in the folders A and B.

    Shows what differs in how they were made, from which epoch on their metrics differ (to the bit, and by more than the
    tolerance), which is faster, and what of a step takes less time.
    """
    from .commands.diff import diff as compare
    from .commands.diff import lines_of

    found = compare(a, b, tolerance=tolerance)
    if json_wanted:
        click.echo(as_json(found))
    else:
        show_lines(lines_of(found, (str(a), str(b)), tolerance))


@main.command()
@_RUN_DIR
def resume(run_dir: Path) -> None:
    """Go on with the run in RUN_DIR, from its last checkpoint.

    Runs its script again, with the same arguments in the same directory; what the script does before the run's fit is
    done again. A finished run is not run again: its result is shown. Exit status as for `heliostat run`.
    """
    from .commands.resume import resume as go_on

    go_on(run_dir, console(), show_traceback=shows_tracebacks())


@main.command()
@click.option("--step", type=click.IntRange(0), required=True, help="Step of the run, counted through from 0.")
@click.option("--microbatch", type=click.IntRange(0), help="Only this microbatch of the step.  [default: all]")
@_JSON
@_RUN_DIR
def replay(step: int, microbatch: int | None, json_wanted: bool, run_dir: Path) -> None:
    """Compute one step of the run in RUN_DIR again, alone, and show it.

    Runs its script again, in one process and without workers, from the last checkpoint before the step up to the step;
    the run itself stays as it is. Shows for every microbatch its rows, loss and metrics over them, how large its
    gradient is for every variable, and what of it is not finite.
    """
    from heliostat.trainer.environment import ReplayWanted

    from .commands.replay import replay as compute_again

    wanted = ReplayWanted(step=step, microbatch=microbatch)
    compute_again(run_dir, wanted, console(), json_wanted=json_wanted, show_traceback=shows_tracebacks())


# Options of chaos may follow the script; all that chaos does not know is the script's.
@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--kill-every", default="30s", show_default=True, metavar="TIME", help="Such as 30s, 500ms or 2m.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Chooses who is killed.")
@click.option("--run-dir", type=LocalPath(), help="Folder of all runs.  [default: runs/chaos-<time>]")
@_SCRIPT
@_ARGUMENTS
def chaos(kill_every: str, seed: int, run_dir: Path | None, script: Path, arguments: tuple[str, ...]) -> None:
    """Prove that killed workers do not change what SCRIPT with ARGUMENTS trains.

    Runs it twice: undisturbed, then with the process of a random worker killed at intervals. Compares the hashes of
    weights and optimizer state and the history of every fit. All fits go to new folders, whatever the script says.

    Options of the script that have the same names go behind `--`:
    heliostat chaos --kill-every 30s train.py -- --seed 4

    The exit status is 0 only if workers were killed and nothing differs, otherwise 1.
    """
    from heliostat.trainer.environment import KillSchedule

    from .commands.chaos import chaos as disturb
    from .commands.chaos import interval_s

    kills = KillSchedule(every_s=interval_s(kill_every), seed=seed)
    if not disturb(script, arguments, kills, console(), run_dir=run_dir):
        raise SystemExit(1)


# Options of verify-run may follow the script, as those of chaos.
@main.command("verify-run", context_settings={"ignore_unknown_options": True})
@click.option(
    "--num-steps", "steps", type=click.IntRange(2), default=4, show_default=True, help="Steps of the first fit."
)
@click.option("--workers", type=click.IntRange(2), default=2, show_default=True, help="Held against one.")
@click.option("--run-dir", type=LocalPath(), help="Folder of the runs.  [default: none is left]")
@_SCRIPT
@_ARGUMENTS
def verify_run(steps: int, workers: int, run_dir: Path | None, script: Path, arguments: tuple[str, ...]) -> None:
    """Prove of SCRIPT with ARGUMENTS that its model trains alike everywhere, and as in plain Keras.

    Computes the first steps of its first fit on several workers, on one, and with one killed: variables and numbers
    must have the same bits after each step. And beside plain Keras on one device, in float64, each step from the same
    state: what differs by more than rounding is named, with the step at which it does so first. What the start of a run
    sees is refused, as always. The script ends behind that fit; its own run folders are left alone.

    Options of the script that have the same names go behind `--`, as for `heliostat chaos`.

    The exit status is 0 only if all is equal that must be, otherwise 1.
    """
    from .commands.verify_run import verify_run as verified

    if not verified(script, arguments, steps, workers, console(), run_dir=run_dir):
        raise SystemExit(1)


# Options of trace may follow the script, as those of chaos.
@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--steps", default="10:30", show_default=True, metavar="FIRST:END", help="Steps of the run, from 0.")
@click.option("--output", type=LocalPath(is_folder=False), default="trace.json", show_default=True)
@click.option("--run-dir", type=LocalPath(), help="Folder of the script's runs.  [default: runs/trace-<time>]")
@_SCRIPT
@_ARGUMENTS
def trace(steps: str, output: Path, run_dir: Path | None, script: Path, arguments: tuple[str, ...]) -> None:
    """Record what all workers do in some steps of SCRIPT with ARGUMENTS, as a Chrome trace.

    Runs the script until its first fit that has such steps has done them, then ends it. The trace has the parts of
    every step on every worker, epochs, checkpoints and changes of the group, on one clock; it says how exact that is.
    Fits go to new folders, whatever the script says. Load the file in https://ui.perfetto.dev or chrome://tracing.

    Options of the script that have the same names go behind `--`, as for `heliostat chaos`.
    """
    from .commands.tracing import trace as record
    from .commands.tracing import wanted_steps

    record(script, arguments, wanted_steps(steps), output, console(), run_dir=run_dir)


@main.command()
@click.argument("source", type=Place())
@click.argument("destination", type=LocalPath())
@click.option("--kind", type=click.Choice(_SOURCE_KINDS), help="What SOURCE is.  [default: from its name or content]")
@click.option("--target", metavar="COLUMN", help="Tables: this column becomes y, the features become x.")
@click.option(
    "--feature", "features", multiple=True, metavar="COLUMN", help="Only these columns.  [default: all others]"
)
@click.option("--column", "columns", multiple=True, metavar="NAME=KIND", help="Such as zip=string, ids=list:int32.")
@click.option("--fill-null", "fill_nulls", multiple=True, metavar="NAME=VALUE", help="For missing values of a column.")
@click.option("--split", metavar="NAME", help="Of a source that has several, such as train.")
@click.option(
    "--bad-pictures", type=click.Choice(["refuse", "drop", "keep"]), help="Images: drop or keep undecodable ones."
)
@click.option("--upright", is_flag=True, help="Images: turn them as their EXIF orientation says.")
@click.option("--shuffle-seed", type=click.IntRange(0), metavar="SEED", help="Shuffle rows while writing.")
@click.option("--resume", is_flag=True, help="Go on with a conversion that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace the dataset at DESTINATION.")
@click.option("--rows-per-shard", type=click.IntRange(1), help="Rows of a file.  [default: about 64 MiB]")
@_JSON
def convert(source: str, destination: Path, json_wanted: bool, **options: Any) -> None:
    """Write SOURCE as a dataset into the folder DESTINATION.

    SOURCE is a file, a folder of files, or a pattern in quotes: .npz, .npy, CSV, JSON lines, Parquet, Arrow, Feather,
    TFRecord (tf.train.Example), IDX; a folder of images with one sub-folder per class; a folder that Hugging Face's
    save_to_disk wrote; or keras:mnist and the other names in keras.datasets.

    A conversion that was interrupted goes on with --resume, to the same result.
    """
    from .commands.convert import convert as write

    with progress_screen() as screen:
        found = write(source, destination, screen=screen, **options).describe()
    click.echo(as_json(found) if json_wanted else found)


@main.command()
@click.argument("dataset", type=Place())
@click.option("--samples", type=click.IntRange(0), default=3, show_default=True, help="Rows to show.")
@click.option("--label", metavar="COLUMN", help="Show how well shuffles mix the classes of this column into batches.")
@click.option(
    "--shuffle", "shuffles", multiple=True, metavar="SHUFFLE", help="Such as window:65536.  [window and full]"
)
@click.option("--batch-size", type=click.IntRange(1), default=1024, show_default=True, help="Rows of those batches.")
@click.option("--full", is_flag=True, help="Look at all rows of a remote dataset, not at a sample.")
@_JSON
def inspect(
    dataset: str,
    samples: int,
    label: str | None,
    shuffles: tuple[str, ...],
    batch_size: int,
    full: bool,
    json_wanted: bool,
) -> None:
    """Show the rows, files and columns of a DATASET, class balance, lengths, and its first rows.

    DATASET is a folder or URI, of a dataset or of foreign Parquet or Arrow files.
    """
    from .commands.inspection import inspect as described

    found = described(dataset, samples, label, shuffles, batch_size, full=full)
    click.echo(as_json(found) if json_wanted else found)


@main.command()
@click.argument("dataset", type=Place())
@_JSON
def verify(dataset: str, json_wanted: bool) -> None:
    """Read every byte of a DATASET and list all damage; ends with status 1 if there is any."""
    from heliostat.data import verify as look

    with progress_screen() as screen:
        report = look(dataset, on_progress=bytes_shown(screen, "reading"))
    click.echo(as_json(report) if json_wanted else report)
    if not report.is_whole:
        raise SystemExit(1)


@main.command()
@click.argument("dataset", type=Place())
@click.argument("uri")
@click.option("--overwrite", is_flag=True, help="Replace the dataset that is there.")
@_JSON
def upload(dataset: str, uri: str, overwrite: bool, json_wanted: bool) -> None:
    """Put a DATASET at a URI, such as s3://bucket/name.

    Files that are there already, from an upload that was interrupted, are not sent again; the manifest comes last.
    """
    from heliostat.data import open_dataset, upload_dataset

    if "://" not in uri:
        raise click.UsageError(f"{uri!r} is no URI such as s3://bucket/name: for a folder of this machine, copy it.")
    with progress_screen() as screen:
        on_progress = bytes_shown(screen, "sending")
        sent = upload_dataset(open_dataset(dataset), uri, overwrite=overwrite, on_progress=on_progress)
    found = sent.describe(full=False)
    click.echo(as_json(found) if json_wanted else found)


@main.command()
@click.option(
    "--workers", type=click.IntRange(0), multiple=True, help="Try so many; may be repeated.  [default: 1 and 2]"
)
@click.option("--model", metavar="MODULE:FUNCTION", help="Your build_model.  [default: a text classifier]")
@click.option("--data", metavar="DATASET", help="What your model trains on.  [default: random tokens]")
@click.option("--inputs", default="x", show_default=True, metavar="COLUMN")
@click.option("--targets", default="y", show_default=True, metavar="COLUMN")
@click.option("--global-batch-size", type=click.IntRange(1), default=256, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True, help="Timed epochs, after a first one.")
@click.option("--address", metavar="ADDRESS", help="A Ray cluster, such as auto.  [default: this machine]")
@_JSON
def bench(
    workers: tuple[int, ...], model: str | None, data: str | None, epochs: int, json_wanted: bool, **arguments: Any
) -> None:
    """Time a model on one and more workers: rows per second, where a step's time goes, what would help.

    The rows are those of --data, or made up. Each number of workers trains a run of its own in a temporary folder.
    With the largest number, bandwidth and latency between every two workers are measured as well.
    """
    from .commands import bench as parts

    if (model is None) != (data is None):
        raise click.UsageError("--model and --data belong together.")
    build, rows = parts.built_in() if model is None else (parts.named(model), str(data))
    say = console(stderr=True).print
    found = parts.bench(build, rows, sorted({*workers} or {1, 2}), arguments, epochs=epochs, say=say)
    if json_wanted:
        click.echo(as_json(parts.as_object(found)))
        return
    console().print(parts.measured_table(found.measured))
    if found.links:
        console().print(parts.links_table(found))
    click.echo(found.advice)


@main.command()
@click.option(
    "--address", metavar="ADDRESS", help="A Ray cluster, such as auto or http://HEAD:8265.  [default: this machine]"
)
@_JSON
def doctor(address: str | None, json_wanted: bool) -> None:
    """Say whether this machine, or a cluster, is a place to train, and what mends what is wrong.

    Looks at packages, tokens, memory, disks, clocks, GPUs and ports of all machines; then lets each read rows and write
    and read a checkpoint on this machine's disk, and workers on all of them sum and train, with times of their links.

    A line for each thing: ok, warn, or fail. The exit status is 1 if something failed.
    """
    from .commands.doctor import doctor as examine

    if not examine(address, json_wanted=json_wanted):
        raise SystemExit(1)


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="heliostat")
