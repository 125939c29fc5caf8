"""Curves as SVG that stands in a page: drawn by Matplotlib, coloured by the page's style sheet.

Matplotlib is imported by the first call, not by this module: it takes a third of a second. Neither pyplot nor the
user's settings are touched. All plots of a page are drawn on the same axes, one after another, since making axes takes
longer than drawing on them. Text stays text, which a page can enlarge and a screen reader can read. A colour is a
variable of the style sheet (``var(--training)``), so that a page that is dark has plots that are.

What was not done: a library that draws in the browser. The page would need a megabyte of JavaScript, or a network.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .curves import Curve

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SIZE = (380, 190)  # of a plot, in pixels of a phone
_BOX = (0.125, 0.125, 0.855, 0.83)  # of the axes in it
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_SETTINGS: Mapping[Any, Any] = {  # Any: names that Matplotlib's types list one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "heliostat",  # the same plot has the same text
    "font.size": 10.0,
    "font.sans-serif": ["DejaVu Sans"],  # for measuring; the page shows its own
    "axes.formatter.limits": (-4, 5),
    "axes.linewidth": 0.6,
    "axes.spines.left": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.solid_joinstyle": "round",
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0.0,
    "path.simplify_threshold": 0.4,
}
# Of its settings those that are a colour.
_COLOURED: Mapping[Any, str] = {
    "axes.edgecolor": "axis",
    "xtick.color": "axis",
    "ytick.color": "axis",
    "grid.color": "grid",
}
_FEW = 4  # epochs of which halves are shown
_FEW_POINTS = 12  # of which each is shown
_WASTE = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<defs>\s*<style.*?</defs>|<!--.*?-->| transform=\"rotate\(-0 .*?\)\"| *\n *", re.DOTALL
)
_ID = re.compile(r'(?<= id=")|(?<=href="#)|(?<=url\(#)')
_COLOUR = re.compile(r"#0000[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plot:
    """A plot over the axis of a run.

    Attributes:
        lines: curves by the name of their colour; "validation" is dashed, "throughput" is seen from zero on.
        areas: shares by the name of their colour, which lie upon each other, in per cent; all at the same places.
        marks: places of vertical lines, by the name of their colour; those of "checkpoint" are short.
    """

    lines: Mapping[str, Curve] = field(default_factory=dict)
    areas: Mapping[str, Curve] = field(default_factory=dict)
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)


def svg_of(plots: Sequence[Plot], begin: float, end: float) -> list[str]:
    """The plots as ``<svg>`` elements, whose ids all differ.

    Args:
        plots: what to draw.
        begin: where the axis begins, in epochs.
        end: where it ends.

    Raises:
        ImportError: Matplotlib cannot be loaded.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    used = (name for plot in plots for names in (plot.lines, plot.areas, plot.marks) for name in names)
    colours = {name: f"#0000{number:02x}" for number, name in enumerate(dict.fromkeys(["axis", "grid", *used]), 1)}
    variables, found = {colour: f"var(--{name})" for name, colour in colours.items()}, []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_SETTINGS, **{setting: colours[name] for setting, name in _COLOURED.items()}})
        canvas = FigureCanvasSVG(Figure(figsize=(SIZE[0] / 72, SIZE[1] / 72), dpi=72))
        axes = canvas.figure.add_axes(_BOX)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=end - begin > _FEW))
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
        for number, plot in enumerate(plots):
            drawn = _draw(axes, plot, colours)
            axes.set_xlim(begin, end)
            canvas.print_svg(text := io.StringIO(), metadata=_NO_METADATA)  # type: ignore[no-untyped-call]
            found.append(_for_page(text.getvalue(), f"p{number}-", variables))
            for artist in drawn:
                artist.remove()
    return found


def _draw(axes: Axes, plot: Plot, colours: Mapping[str, str]) -> list[Artist]:
    """Draw on empty axes; returns what is to be removed before the next plot."""
    drawn: list[Artist] = []
    for name, curve in plot.lines.items():
        style, marker = "--" if name == "validation" else "-", "o" if len(curve.x) < _FEW_POINTS else ""
        drawn += axes.plot(curve.x, curve.y, style, color=colours[name], marker=marker, markersize=3)
    if plot.areas:
        areas, shades = list(plot.areas.values()), [colours[name] for name in plot.areas]
        drawn += axes.stackplot(areas[0].x, *(100 * area.y for area in areas), colors=shades, linewidth=0)
    for name, places in plot.marks.items():
        top, across = 0.06 if name == "checkpoint" else 1.0, axes.get_xaxis_transform()
        drawn.append(axes.vlines(places, 0, top, transform=across, color=colours[name], linewidth=1.0))
    axes.set_autoscaley_on(True)
    axes.relim()
    axes.autoscale_view()
    if plot.areas or "throughput" in plot.lines:
        axes.set_ylim(0, 100 if plot.areas else 1.1 * axes.dataLim.y1 or 1)
    return drawn


def _for_page(svg: str, prefix: str, variables: Mapping[str, str]) -> str:
    """An SVG file as an element of a page: no headers, ids of its own, colours from the style sheet."""
    svg = _ID.sub(prefix, _WASTE.sub(" ", svg))
    return _COLOUR.sub(lambda found: variables.get(found[0], found[0]), svg).strip()
