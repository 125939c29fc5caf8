"""Writes into `docs/reference/what-works.md` what is held of every public name of Keras, from the recipes of the tests.

python -m tests.keras.page            writes it
python -m tests.keras.page --check    ends with status 1 where it is out of date
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras

from .branches import LAYERS
from .callbacks import CALLBACKS
from .losses import FUNCTIONS as LOSS_FUNCTIONS
from .losses import LOSSES
from .metrics import FUNCTIONS as METRIC_FUNCTIONS
from .metrics import METRICS
from .optimizers import OPTIMIZERS, OPTIONS, SCHEDULES
from .recipe import Recipe, of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "what-works.md"
BEGIN, END = "<!-- written by python -m tests.keras.page -->\n", "<!-- end of what is written -->\n"
KINDS: dict[str, Mapping[str, Recipe]] = {
    "Losses": LOSSES | {f"{name}()": recipe for name, recipe in LOSS_FUNCTIONS.items()},
    "Metrics": METRICS | {f"{name}()": recipe for name, recipe in METRIC_FUNCTIONS.items()},
    "Optimizers": OPTIMIZERS | {f"{name}=": recipe for name, recipe in OPTIONS.items()},
    "Schedules": SCHEDULES,
    "Layers": LAYERS,
    "Callbacks": CALLBACKS,
}


def listed(found: list[str]) -> str:
    """Names in a line; those that differ in their number of axes together."""
    stems: dict[str, list[str]] = {}
    for name in found:
        axes = name[-2:] if name[-2:] in ("1D", "2D", "3D") else ""
        stems.setdefault(name.removesuffix(axes), []).append(axes)
    return ", ".join(f"`{stem}{'/'.join(axes)}`" for stem, axes in stems.items())


def lines(title: str, recipes: Mapping[str, Recipe]) -> Iterator[str]:
    """What is held of one kind of names."""
    equal = sorted(of(recipes, "equal"))
    classes = [name for name in equal if name[-1] not in ")="]
    others = len([name for name in equal if name.endswith("()")])
    beside = f", and {others} functions" if others else ""
    options = [name for name in equal if name.endswith("=")]
    chosen = f"; with {listed(options)}" if options else ""
    yield from textwrap.wrap(f"**{title}.** Equal ({len(classes)}{beside}): {listed(classes)}{chosen}.", 120)
    yield ""
    reasons: dict[str, list[str]] = {}
    for verdict in ("said", "refused"):
        for name in sorted(of(recipes, verdict)):
            reasons.setdefault(f"{verdict.capitalize()}: NAMES: {recipes[name].reason}.", []).append(name)
    classes_only = [name for name in sorted(of(recipes, "base")) if not name.endswith("()")]
    reasons["Not tried: NAMES."] = [f"{name}` ({recipes[name].reason})`" for name in classes_only]
    for sentence, found in reasons.items():
        text = sentence.replace("NAMES", listed(found)).replace("``", "")
        yield from textwrap.wrap(f"- {text}", 120, subsequent_indent="  ")
    yield ""


def written() -> str:
    """The part of the page that is written by this program."""
    version = ".".join(keras.__version__.split(".")[:2])
    head = (
        f"Every public name of Keras {version} is tried by the tests, in float64, against plain Keras on one device. "
        "*Equal*: to 1e-10, on two workers with four microbatches (where Keras itself computes in float32, to 1e-6). "
        "*Said*: what is counted per microbatch; equal to plain Keras with `num_microbatches=1`, else the same bits on "
        "any number of workers. *Refused*: by name, before the first step."
    )
    parts = [*textwrap.wrap(head, 120), ""]
    for title, recipes in KINDS.items():
        parts += lines(title, recipes)
    return "\n".join(parts)


def renewed(page: str) -> str:
    """The page with this part anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{written()}{END}{after}"


def main(arguments: list[str]) -> int:
    """The command."""
    page = PAGE.read_text()
    if page == renewed(page):
        return 0
    if "--check" in arguments:
        print(f"{PAGE} is out of date. Write it: python -m tests.keras.page")
        return 1
    PAGE.write_text(renewed(page))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
