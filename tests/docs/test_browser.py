"""The docs in a browser, as wide as a desk's and as a phone's: Debian's Chromium, without a window."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.slow import SLOW

from .conftest import names_of

pytestmark = pytest.mark.slow

INSTALL = "apt-get install chromium chromium-driver"
WIDTHS = {"desk": 1280, "phone": 375}
WAIT_S = 10 * SLOW
READABLE = 4.5  # WCAG's contrast of text with what is behind it
SMALLEST_PX = 12.0
# Of every text in a block of code: how it stands out from the block, and its size.
CODE = """
const shade = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
return [...document.querySelectorAll("article pre")].flatMap(block => {
    const behind = shade(getComputedStyle(block).backgroundColor);
    return [block, ...block.querySelectorAll("span")].filter(each => each.textContent.trim()).map(each => {
        const style = getComputedStyle(each), light = shade(style.color);
        const [less, more] = [light, behind].sort((a, b) => a - b);
        return [each.textContent, (more + 0.05) / (less + 0.05), parseFloat(style.fontSize)];
    });
});
"""
# Text that goes on behind the edge of what it stands in, and cannot be scrolled to.
CUT = """
return [...document.querySelectorAll("article :is(h1, h2, h3, h4, p, li, dt)")]
    .filter(each => each.scrollWidth > each.clientWidth + 1 && each.clientWidth && !each.closest("table"))
    .map(each => each.textContent.slice(0, 60));
"""


class Silent(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """Where the site is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def browser(width: int, *, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser whose window is so wide, and in which no name of a host is known."""
    programs = [shutil.which(name, path="/usr/bin") for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.fail(f"The docs are tried in a browser; install it: {INSTALL}")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-extensions"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1])) as driver:
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver


def asked_for(driver: webdriver.Chrome) -> list[str]:
    """What the browser has asked for, since this was last called."""
    messages = [json.loads(each["message"])["message"] for each in driver.get_log("performance")]
    sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return [each["request"]["url"] for each in sent]


def waited(driver: webdriver.Chrome, css: str):
    """The first element that this selects and that can be seen, as soon as there is one."""

    def found(_):
        return next((each for each in driver.find_elements(By.CSS_SELECTOR, css) if each.is_displayed()), None)

    return WebDriverWait(driver, WAIT_S).until(found, f"nothing to be seen of {css}")


def wrong_with(driver: webdriver.Chrome, address: str, width: int) -> list[str]:
    """What is wrong with the page that is shown, served from this address."""
    found = [each["message"] for each in driver.get_log("browser") if each["level"] == "SEVERE"]
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    outside = [each for each in asked_for(driver) if not each.startswith((address, "data:", "blob:"))]
    cut = [f"cut: {text}" for text in driver.execute_script(CUT)]
    return [*found, *([f"it is {wide} wide"] if wide > width else []), *cut, *outside]


def test_what_is_wrong_with_a_page_is_noticed(address):
    body = (
        "<article><h1 style='width: 50px'>nothing/that/can/be/broken</h1></article><div style='width: 999px'></div>"
        "<img src='http://example.org/a.png'><script>console.error('bad')</script>"
    )
    with browser(WIDTHS["phone"]) as driver:
        driver.get(f"data:text/html,{body}")
        found = "\n".join(wrong_with(driver, address, WIDTHS["phone"]))
    assert '"bad"' in found
    assert "it is 9" in found
    assert "cut: nothing/that" in found
    assert "http://example.org/a.png" in found


@pytest.mark.parametrize("part", ["", "how-to", "reference", "explanation", "files"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_pages_are_shown_without_an_error_and_are_not_wider_than_the_screen(site, address, width, part):
    names = [name for name in names_of(site) if name.partition("/")[0] == part or (not part and "/" not in name)]
    assert names
    wrong = {}
    with browser(width) as driver:
        for name in names:
            driver.get(f"{address}/{name}")
            wrong[name] = wrong_with(driver, address, width)
    assert {name: found for name, found in wrong.items() if found} == {}


def test_every_page_is_in_one_of_these_parts(site):
    parts = {name.partition("/")[0] for name in names_of(site) if "/" in name}
    assert parts == {"how-to", "reference", "explanation", "files"}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_the_navigation_leads_to_a_page(address, width):
    with browser(width) as driver:
        driver.get(f"{address}/index.html")
        if width == WIDTHS["phone"]:
            waited(driver, "button.primary-toggle").click()
        waited(driver, "a.nav-link[href='reference/index.html']").click()
        WebDriverWait(driver, WAIT_S).until(lambda _: driver.current_url.endswith("/reference/index.html"))
        if width == WIDTHS["phone"]:
            waited(driver, "button.primary-toggle").click()
        waited(driver, "nav.bd-links a[href='trainer.html']").click()
        WebDriverWait(driver, WAIT_S).until(lambda _: driver.current_url.endswith("/reference/trainer.html"))
        assert waited(driver, "article h1").text.startswith("Trainer")


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_what_is_searched_is_found(address, width):
    with browser(width) as driver:
        driver.get(f"{address}/how-to/index.html")
        waited(driver, "button.search-button__button, button.search-button").click()
        field = waited(driver, "input[type=search]")
        field.send_keys("checkpoint_every", Keys.ENTER)
        result = waited(driver, "#search-results li a")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        result.click()
        assert "checkpoint_every" in waited(driver, "article").text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_code_can_be_read(site, address, dark):
    with browser(WIDTHS["phone"], dark=dark) as driver:
        for name in ("reference/run-folder.html", "how-to/several-gpus.html", "reference/data.html"):
            driver.get(f"{address}/{name}")
            assert driver.execute_script("return document.documentElement.dataset.theme") == (
                "dark" if dark else "light"
            )
            found = driver.execute_script(CODE)
            assert found
            assert [each for each in found if each[1] < READABLE or each[2] < SMALLEST_PX] == []
            blocks = driver.find_elements(By.CSS_SELECTOR, "article pre")
            assert {each.value_of_css_property("overflow-x") for each in blocks} == {"auto"}, "long lines scroll"
            assert {each.value_of_css_property("white-space-collapse") for each in blocks} == {"preserve"}


def test_who_has_no_browser_is_told_what_installs_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(pytest.fail.Exception, match=INSTALL), browser(WIDTHS["desk"]):
        pass
