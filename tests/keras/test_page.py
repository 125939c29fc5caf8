"""The page about what works says what the tests hold."""

from __future__ import annotations

from .page import BEGIN, END, PAGE, main, renewed


def test_the_page_is_what_the_recipes_say():
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert main(["--check"]) == 0, "run: python -m tests.keras.page"


def test_a_page_that_is_out_of_date_is_seen():
    page = PAGE.read_text()
    assert renewed(page.replace("`Dice`", "")) == page
