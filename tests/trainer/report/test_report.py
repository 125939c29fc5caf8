"""The report of runs that were never made: what is on the page, whatever a run was, and how long that takes to make."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from heliostat.trainer.checkpoints.values import to_line
from heliostat.trainer.driver.reports import event_lines
from heliostat.trainer.events import EVENTS, EpochRecord
from heliostat.trainer.report.curves import MAX_POINTS, metric_curves, place_of, stretches
from heliostat.trainer.report.page import page_of
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.report.summary import GROUPS, shares_of, summary_of

from . import made_up

EVIL = "<script>alert('x')</script><img src=http://example.org/a.png>&\"'"
MAX_BYTES = 1_000_000


class Page(HTMLParser):
    """What of a page matters here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.ids, self.links, self.open = "", [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(run: RecordedRun) -> Page:
    """The page of a run, which is whole, asks for nothing, and is not too large."""
    html = page_of(run, summary_of(run), event_lines(run))
    assert len(html.encode()) < MAX_BYTES
    found = Page(html)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert [link for link in found.links if not link.startswith(("#", "data:"))] == []
    assert "script" not in found.tags
    assert not re.search(r"url\((?!#)|@import", html)
    return found


def test_it_says_what_the_run_was():
    found = page(made_up.run())
    for part in ("mnist-20261129-203000-5f3a9c21", "finished", "12 of 12", "val_accuracy", "killed by signal 9"):
        assert part in found.text
    assert summary_of(made_up.run()).sentence in found.text
    assert found.tags.count("svg") == 4  # loss, accuracy; throughput, shares
    assert found.tags.count("h1") == 1


def test_every_plot_is_told_to_those_who_do_not_see_it():
    html = page_of(made_up.run(), summary_of(made_up.run()), event_lines(made_up.run()))
    labels = re.findall(r'role="img" aria-label="(.*?)"', html)
    assert len(labels) == 4 + 3  # and a bar for each worker
    first, last = made_up.run().epochs[0].logs["loss"], made_up.run().epochs[-1].logs["loss"]
    assert any(f"training from {first:.4g} to {last:.4g}" in label for label in labels)


def test_the_same_run_has_the_same_page():
    run = made_up.run()
    assert page_of(run, summary_of(run), event_lines(run)) == page_of(run, summary_of(run), event_lines(run))


def test_texts_of_others_are_text():
    run = made_up.run(id=EVIL, state="failed", error=EVIL, notes=[EVIL], versions={EVIL: EVIL}, workers=[])
    epochs = tuple(replace(each, logs={EVIL: 1.0, f"val_{EVIL}": EVIL}) for each in run.epochs)
    events = tuple(replace(each, reason=EVIL) if hasattr(each, "reason") else each for each in run.events)
    found = page(replace(run, epochs=epochs, events=events))
    assert found.text.count(EVIL) >= 6
    assert "img" not in found.tags


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_counted_and_the_rest_is_drawn(value):
    run = made_up.run()
    epochs = [replace(each, logs={"loss": value if each.epoch == 3 else 1.0, "mae": value}) for each in run.epochs]
    run = replace(run, epochs=tuple(epochs))
    curves = metric_curves(run)
    assert [curve.num_lost for curve in curves["loss"]] == [1]
    assert np.isnan(curves["loss"][0].y).sum() == 1
    found = page(run)
    assert "1 values are NaN or infinite" in found.text
    assert "12 values are NaN or infinite" in found.text
    assert found.tags.count("svg") == 4


def test_metrics_that_are_no_numbers_are_shown_and_not_drawn():
    run = made_up.run()
    logs = {"loss": 1.0, "matrix": [[1, 2], [3, 4]], "words": "good", "flag": True, "nothing": None, "map": {"a": 1}}
    run = replace(run, epochs=tuple(replace(each, logs=logs) for each in run.epochs))
    assert metric_curves(run).keys() == {"loss"}
    assert "[[1, 2], [3, 4]]" in page(run).text


@pytest.mark.parametrize("state", ["failed", "interrupted", "paused"])
def test_a_run_that_did_not_finish_says_why(state):
    reason = {"paused": "reason"}.get(state, "error")
    found = page(made_up.run(state=state, seconds=None, sha256={}, **{reason: f"because\n{'of this ' * 9000}"}))
    assert "because\n" in found.text
    assert f"Why it {'paused' if state == 'paused' else 'failed'}" in found.text


def test_a_run_of_which_nothing_is_known_has_a_page():
    for run in (RecordedRun(record={"state": "failed"}), RecordedRun(record=made_up.record("failed", workers=[]))):
        found = page(run)
        assert "failed" in found.text
        assert "svg" not in found.tags
        assert summary_of(run).samples_per_s is None


def test_a_run_without_samples_has_its_epochs():
    run = replace(made_up.run(), samples=())
    found = page(run)
    assert found.tags.count("svg") == 4
    summary = summary_of(run)
    assert summary.samples_per_s == pytest.approx(256 / max(sum(w.seconds.values()) / 240 for w in summary.workers))
    assert all(worker.microbatches is None for worker in summary.workers)


def test_a_run_of_one_epoch_has_the_metrics_of_its_samples():
    run = made_up.run(num_epochs=1, every=1)
    assert len(metric_curves(run)["loss"][0].x) == 22
    assert metric_curves(run)["loss"][0].x.max() == 1.0
    page(run)


def test_a_run_within_its_first_epoch_has_a_page():
    run = made_up.run(num_epochs=1, every=5)
    run = replace(run, epochs=(), samples=run.samples[:3])
    assert page(run).tags.count("svg") == 4
    assert summary_of(run).epochs_done == 0


def test_sixty_four_workers_fifty_metrics_and_many_events_stay_small():
    run = made_up.run(num_epochs=100, num_workers=64, metrics=50, every=20)
    found = page(run)
    assert found.tags.count("svg") == 52
    assert "of 106 events" in found.text
    assert all(len(curve.x) <= MAX_POINTS + 2 for pair in metric_curves(run).values() for curve in pair)


def test_a_spike_is_not_thinned_out():
    values = np.ones(1999)
    values[777], values[1200] = 50.0, -50.0
    epochs = tuple(
        EpochRecord(epoch=number, logs={"loss": float(value)}, rows=1, rows_by_worker={}, seconds_by_worker={})
        for number, value in enumerate(values)
    )
    (curve,) = metric_curves(RecordedRun(record={}, epochs=epochs))["loss"]
    assert len(curve.x) <= MAX_POINTS + 2
    assert curve.x[[curve.y.argmax(), curve.y.argmin()]].tolist() == [778, 1201]
    assert (curve.x[0], curve.x[-1]) == (1, 1999)


def test_parts_of_time_add_up_whatever_samples_are_left_out():
    run = made_up.run(num_epochs=60, every=1)
    found = stretches(run)
    assert len(found) < len(run.samples) / 4
    last = {each.worker: each.seconds for each in run.samples[-1].workers}
    first = {each.worker: each.seconds for each in run.samples[0].workers}
    for worker in summary_of(run).workers:
        for part, seconds in worker.seconds.items():
            assert seconds == pytest.approx(last[worker.worker][part] - first[worker.worker][part])
        assert sum(shares_of(worker.seconds).values()) == pytest.approx(1)
    assert [each.rows / each.seconds for each in found] == pytest.approx([256 / (made_up.STEP_S + 0.042)] * len(found))


def test_a_worker_that_begins_again_begins_at_nothing():
    parts = {"compute_s": 0.1}
    before = [made_up.sample(step, {0: parts, 1: parts}) for step in range(400)]
    again = [  # both begin anew at step 400, one under a new number
        replace(made_up.sample(step, {0: parts, 2: parts}), step=step + 400, rows=(step + 400) * 256)
        for step in range(1, 400)
    ]
    run = RecordedRun(record=made_up.record(), samples=(*before, *again))
    spent = {each.worker: each.seconds["compute_s"] for each in summary_of(run).workers}
    between_s = 800 / MAX_POINTS * 0.1  # what it did last may be in no sample that is looked at
    assert spent == {0: pytest.approx(79.8, abs=between_s), **dict.fromkeys((1, 2), pytest.approx(39.9, abs=between_s))}


def test_events_lie_where_they_happened():
    run = made_up.run()
    found = place_of(run, [each.time for each in run.events])
    places = dict(zip([each.event for each in run.events], found, strict=True))
    assert places["lost"] == pytest.approx(4.15)
    assert places["rebalanced"] == pytest.approx(6.5)
    assert places["paused"] == pytest.approx(9)
    assert places["checkpoint"] == pytest.approx(12)  # the last


def test_each_event_is_said_in_a_line():
    run = made_up.run()
    lines = event_lines(run)
    assert len(lines) == len(run.events)
    assert all(line and "\n" not in line for line in lines)
    assert {each.event for each in run.events} <= set(EVENTS)


def test_the_summary_is_json_whatever_is_in_it():
    run = made_up.run(seconds=math.inf)
    run = replace(run, epochs=tuple(replace(each, logs={"loss": math.nan}) for each in run.epochs))
    found = json.loads(to_line(summary_of(run).to_json()))
    assert found["metrics"] == {"loss": "NaN"}
    assert found["rows"] == 12 * 5120
    assert found["events"]["lost"] == 1
    assert found["verdict"].keys() >= {"cause", "evidence", "remedy", "gain"}
    assert found["workers"][1]["left"] == "killed by signal 9"


def test_a_colour_on_the_page_is_one_of_its_style_sheet():
    html = page_of(made_up.run(), summary_of(made_up.run()), event_lines(made_up.run()))
    style, body = html.split("</style>", 1)
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    named = set(re.findall(r"(--[\w-]+):", light))
    assert set(re.findall(r"var\((--[\w-]+)\)", style + body)) <= named
    assert {f"--{name.replace(' ', '-')}" for name in GROUPS} <= named
    assert set(re.findall(r"(--[\w-]+):", dark)) == named
    assert not re.search(r"(?:fill|stroke): #", body)


def test_neither_the_trainer_nor_a_settings_file_loads_or_changes_matplotlib(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\nsvg.fonttype: path\n")
    code = (
        "import sys\nsys.path.insert(0, sys.argv[1])\nimport heliostat.trainer.driver.reports\n"
        "print('matplotlib' in sys.modules, 'jinja2' in sys.modules, 'tensorflow' in sys.modules)\n"
        "from tests.trainer.report import made_up\n"
        "from heliostat.trainer.report.page import page_of\nfrom heliostat.trainer.report.summary import summary_of\n"
        "run = made_up.run(); html = page_of(run, summary_of(run), [''] * len(run.events))\n"
        "import matplotlib\n"
        "print(html.count('<text') > 20, matplotlib.rcParams['font.size'], 'matplotlib.pyplot' in sys.modules)"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.split("\n")[:2] == ["False False False", "True 40.0 False"], done.stderr
