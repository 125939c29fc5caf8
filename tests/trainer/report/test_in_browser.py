"""The report in Chromium, without a window: as wide as a desk's and as a phone's, light and dark, without a network."""

from __future__ import annotations

import pytest
from heliostat.trainer.driver.reports import event_lines
from heliostat.trainer.report.page import page_of
from heliostat.trainer.report.recorded import RecordedRun
from heliostat.trainer.report.summary import summary_of

from ...docs.test_browser import READABLE, WIDTHS, asked_for, browser
from . import made_up

pytestmark = pytest.mark.slow

# What goes over the right edge, but for what can be scrolled to; and plots of no size.
OUTSIDE = """
return [...document.querySelectorAll("body *")]
    .filter(each => !each.closest(".scroll, svg") && each.getBoundingClientRect().right > innerWidth + 0.5)
    .map(each => each.tagName + " " + each.textContent.slice(0, 40));
"""
SIZES = "return [...document.querySelectorAll('svg')].map(each => [each.clientWidth, each.clientHeight])"
# How far texts stand out from the card or page behind them, and the size of those in plots on the screen.
CONTRASTS = """
const shade = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
return [...document.querySelectorAll("h1, h2, h3, p, dt, dd, th, td, li, span, svg text")].map(each => {
    const card = each.closest(".card, .tiles div") || document.body, style = getComputedStyle(each);
    const colour = each.closest("svg") ? style.fill : style.color;
    const [less, more] = [shade(colour), shade(getComputedStyle(card).backgroundColor)].sort((a, b) => a - b);
    return [each.textContent.slice(0, 30), (more + 0.05) / (less + 0.05)];
});
"""
TEXTS = "return [...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)"


@pytest.fixture
def page(tmp_path):
    """page(run) -> the address of the file."""

    def made(run: RecordedRun) -> str:
        path = tmp_path / "report.html"
        path.write_text(page_of(run, summary_of(run), event_lines(run)))
        return path.as_uri()

    return made


RUNS = {
    "finished": made_up.run(),
    "failed": made_up.run(state="failed", error="x" * 3000 + "\n" + "no end of this " * 100),
    "large": made_up.run(num_epochs=50, num_workers=64, metrics=12, every=10),
    "old": RecordedRun(record=made_up.record(), epochs=made_up.run().epochs, events=made_up.run().events),
    "nothing": RecordedRun(record={"state": "failed", "id": "n" * 200}),
}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", RUNS)
def test_it_fits_the_screen_asks_for_nothing_and_shows_its_plots(page, name, width):
    address = page(RUNS[name])
    with browser(width) as driver:
        driver.get(address)
        assert [each["message"] for each in driver.get_log("browser")] == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert driver.execute_script(OUTSIDE) == []
        assert [each for each in asked_for(driver) if each != address and not each.startswith("data:")] == []
        sizes = driver.execute_script(SIZES)
        assert len(sizes) == {"nothing": 0, "large": 14}.get(name, 4)
        assert all(wide > 250 and high > 100 for wide, high in sizes)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_it_can_be_read(page, width, dark):
    with browser(width, dark=dark) as driver:
        driver.get(page(RUNS["finished"]))
        behind = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, behind[4:-1].split(","))) < 384) is dark
        found = driver.execute_script(CONTRASTS)
        assert len(found) > 100
        assert [each for each in found if each[1] < READABLE] == []
        assert min(driver.execute_script(TEXTS)) >= 9


def test_without_javascript_it_is_the_same(page):
    with browser(WIDTHS["desk"]) as driver:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver.get(page(RUNS["finished"]))
        assert "val_accuracy" in driver.page_source
        assert driver.page_source.count("<svg") == 4
