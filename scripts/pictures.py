"""Makes the pictures of README and the docs, each from a real run: ``python scripts/pictures.py [NAME ...]``.

The screen is that of a terminal of 80 columns, in which a script trains on three workers of this machine, one of which
is killed. Needs tmux (``apt-get install tmux``), which is the terminal. The report is that of a run which a callback
holds up, as Chromium shows it (``apt-get install chromium``).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from heliostat.scripts.errors import ScriptError
from rich.console import Console
from rich.text import Text

PLACE = Path(__file__).parents[1] / "docs" / "_static"
_COLUMNS, _LINES, _LIMIT_S = 80, 17, 600.0
_FONTS = "'DejaVu Sans Mono', Menlo, Consolas, monospace"
_SCRIPT = """
import numpy as np
from heliostat.trainer import Trainer


def build_model():
    import keras

    model = keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(512, "relu") for _ in range(3))])
    model.add(keras.layers.Dense(10, "softmax"))
    model.compile(keras.optimizers.Adam(2e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


numbers = np.random.default_rng(0)
y = numbers.integers(0, 10, 12_000)
x = (numbers.normal(size=(10, 64))[y] + 4 * numbers.normal(size=(len(y), 64))).astype("float32")
with Trainer(build_model, workers=3, num_microbatches=12, run_dir="runs/digits") as trainer:
    trainer.fit(x, y, batch_size=120, epochs=40, validation_split=0.1)
"""
_REPORTED = """
import time

import keras
import numpy as np
from heliostat.trainer import Trainer


def build_model():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Log(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(0.02)  # a slow disk


numbers = np.random.default_rng(0)
y = numbers.integers(0, 10, 6_000)
x = (numbers.normal(size=(10, 64))[y] + 3 * numbers.normal(size=(len(y), 64))).astype("float32")
with Trainer(build_model, workers=2, in_process=True, num_microbatches=4, run_dir="runs/digits") as trainer:
    trainer.fit(x, y, batch_size=120, epochs=10, validation_split=0.2, callbacks=[Log()])
"""
_WINDOW = "1120,1040"  # pixels


def screen(target: Path) -> None:
    """The live block of a run that has lost a worker."""
    with tempfile.TemporaryDirectory(prefix="heliostat-pictures-") as place, _terminal(Path(place)) as shown:
        _wait_for(lambda: "epoch 3/40" in shown() and "memory" in shown())
        workers = json.loads((Path(place) / "runs" / "digits" / "run.json").read_text())["workers"]
        os.kill(workers[-1]["pid"], signal.SIGKILL)
        _wait_for(lambda: "joined:" in shown())
        epoch = _epoch_of(shown())
        _wait_for(lambda: _epoch_of(shown()) > epoch and re.search(r"[4-8]\d/90", shown()))
        _write(shown(), "python train.py", target)


def report(target: Path) -> None:
    """The upper part of the report of a run that a callback holds up."""
    browser = shutil.which("chromium")
    if browser is None:
        raise ScriptError("The picture of the report needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="heliostat-pictures-") as place:
        (Path(place) / "train.py").write_text(_REPORTED)
        subprocess.run([sys.executable, "train.py"], cwd=place, check=True, timeout=_LIMIT_S)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={_WINDOW}"]
        page = (Path(place) / "runs" / "digits" / "report.html").as_uri()
        subprocess.run([browser, *options, f"--screenshot={target}", page], check=True, timeout=_LIMIT_S)


@contextlib.contextmanager
def _terminal(place: Path) -> Iterator[Callable[[], str]]:
    """A terminal in which the script runs, in a folder; what it shows, with escapes for colours."""
    tmux = [shutil.which("tmux") or "", "-L", f"heliostat-{os.getpid()}"]
    if not tmux[0]:
        raise ScriptError("The picture of the screen needs tmux: apt-get install tmux")
    (place / "train.py").write_text(_SCRIPT)
    size = ["-x", str(_COLUMNS), "-y", str(_LINES)]
    command = f"{sys.executable} train.py 2>errors; sleep 60"
    subprocess.run([*tmux, "new-session", "-d", *size, command], cwd=place, check=True)
    capture = [*tmux, "capture-pane", "-e", "-p"]
    try:
        yield lambda: subprocess.run(capture, capture_output=True, text=True, check=True).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def _wait_for(is_so: Callable[[], object]) -> None:
    until_s = time.monotonic() + _LIMIT_S
    while not is_so():
        if time.monotonic() > until_s:
            raise ScriptError(f"The run did not come to what the picture is to show within {_LIMIT_S:g} s.")
        time.sleep(0.2)


def _epoch_of(text: str) -> int:
    """The number of the epoch that runs."""
    return max((int(found) for found in re.findall(r"epoch (\d+)/", text)), default=0)


def _write(shown: str, title: str, target: Path) -> None:
    """Write what a terminal shows as an SVG that loads nothing from elsewhere."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown.rstrip()))
    picture = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)
    picture = re.sub(r"font-family: ?(Fira Code|arial)[^;]*", f"font-family: {_FONTS}", picture)
    target.write_text(picture)


PICTURES: dict[str, Callable[[Path], None]] = {"screen.svg": screen, "report.png": report}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*PICTURES]))
def main(names: tuple[str, ...]) -> None:
    """Make the pictures NAMES, by default all, anew."""
    for name in names or PICTURES:
        PICTURES[name](PLACE / name)
        click.echo(PLACE / name)


if __name__ == "__main__":
    main()
