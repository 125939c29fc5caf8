"""``report.html``: a run on one page, in one file, that needs neither a network nor JavaScript.

What is on it is decided here and in `summary`; how it looks is in the template beside this file, which escapes every
text that it is given. The page is bounded whatever the run was: curves have some hundred points, tables some dozen
rows, and a text that may be long has some hundred letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors.texts import duration_text, moment_text, number_text, short_text, size_text
from .curves import MAX_POINTS, Curve, Stretch, curve_of, first_epoch, metric_curves, place_of, stretches
from .plots import Plot, svg_of
from .recorded import RecordedRun
from .summary import GROUPS, Summary, mean_seconds, shares_of

TEMPLATE = Path(__file__).with_name("report.html.j2")
_MAX_METRICS = 60
_MARKS = ("lost", "paused", "rebalanced", "checkpoint")  # events that are seen on plots
_SECTIONS = ("plan", "data", "identity", "command", "platform", "versions", "start_s")  # of run.json, that are shown
_FILTERS = {"number": number_text, "duration": duration_text, "size": size_text, "moment": moment_text}


def page_of(run: RecordedRun, summary: Summary, lines: Sequence[str]) -> str:
    """The report as HTML.

    Args:
        run: what was recorded.
        summary: of it.
        lines: what is said of each event of the run.

    Raises:
        ImportError: Matplotlib or Jinja cannot be loaded.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {**_FILTERS, "short": short_text, "shares": shares_of, "low": np.nanmin, "high": np.nanmax}
    places, between = place_of(run, (event.time for event in run.events)), stretches(run)
    happened = {name: places[[each.event == name for each in run.events]] for name in _MARKS if name in summary.events}
    marks = {name: each[:: -(-len(each) // MAX_POINTS)] for name, each in happened.items()}
    metrics, times = _metric_plots(run, marks), _time_plots(between, marks)
    end = max([each.epoch + 1 for each in run.epochs[-1:]] + [each.end for each in between], default=1.0)
    plots = [*metrics.items(), *times.items()]
    svgs = svg_of([plot for _, plot in plots], first_epoch(run), end)
    return environment.from_string(TEMPLATE.read_text()).render(
        summary=summary,
        figures=[(name, plot, svg) for (name, plot), svg in zip(plots, svgs, strict=True)],
        num_metrics=len(metrics),
        groups={name: name.replace(" ", "-") for name in GROUPS},
        marks=list(marks),
        events=list(zip(run.events, places, lines, strict=True)),
        record=run.record,
        sections={name: run.record[name] for name in _SECTIONS if run.record.get(name)},
    )


def _metric_plots(run: RecordedRun, marks: Mapping[str, np.ndarray]) -> dict[str, Plot]:
    """By the name of what is drawn."""
    rare = {name: places for name, places in marks.items() if name != "checkpoint"}
    curves = islice(metric_curves(run).items(), _MAX_METRICS)
    return {name: Plot(lines={each.name: each for each in pair}, marks=rare) for name, pair in curves}


def _time_plots(between: Sequence[Stretch], marks: Mapping[str, np.ndarray]) -> dict[str, Plot]:
    """Likewise, of where time went; none where that was not recorded."""
    timed = [each for each in between if each.seconds > 0]
    if not timed:
        return {}
    ends, shares = np.array([each.end for each in timed]), [shares_of(mean_seconds(each.spent)) for each in timed]
    areas = {name.replace(" ", "-"): Curve(name, ends, np.array([each[name] for each in shares])) for name in GROUPS}
    rate = curve_of("throughput", [(each.end, each.rows / each.seconds) for each in timed])
    return {"samples/s": Plot(lines={"throughput": rate}, marks=marks), "where the time goes, %": Plot(areas=areas)}
