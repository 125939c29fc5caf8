"""What hooks print goes into the log and to the driver, which leaves out what an earlier chief has told."""

from __future__ import annotations

import sys

import pytest
from heliostat.trainer.driver.printed_once import PrintedOnce
from heliostat.trainer.jobs import Printed
from heliostat.trainer.worker import printed
from heliostat.trainer.worker.printed import ChiefsWords


@pytest.fixture
def sent():
    return []


@pytest.fixture
def words(sent):
    return ChiefsWords(3, sent.append)


def test_a_hook_that_prints_is_told_and_logged_and_a_silent_one_is_not(words, sent, capsys):
    before = sys.stdout
    with words.heard("on_epoch_end", 8, 1):
        print("\nloss is low")
        print("very")
    with words.heard("on_epoch_begin", 8, 2):
        pass
    assert sys.stdout is before
    assert sent == [Printed(worker=3, hook="on_epoch_end", step=8, epoch=1, text="loss is low\nvery")]
    assert capsys.readouterr().out == "\nloss is low\nvery\n"


def test_what_was_printed_before_an_error_is_told(words, sent):
    def fail():
        print("before")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), words.heard("on_epoch_end", 8, 1):
        fail()
    assert [each.text for each in sent] == ["before"]


def test_who_prints_much_is_told_to_a_limit_and_logged_whole(words, sent, capsys, monkeypatch):
    monkeypatch.setattr(printed, "LETTERS_PER_S", 100)
    monkeypatch.setattr(printed.time, "monotonic", lambda: 5.0)
    for _ in range(5):
        with words.heard("on_train_batch_end", 8, 1):
            for _ in range(10):
                print("x" * 9)
    assert len(capsys.readouterr().out) == 5 * 100
    assert sum(each.text.count("x") for each in sent) <= 100
    assert "".join(each.text for each in sent).count("in the chief's log") == 1


def test_a_new_chief_tells_what_the_lost_one_has_not():
    def said(worker, step, text="a\nb"):
        return once.new_lines(Printed(worker=worker, hook="on_test_batch_end", step=step, epoch=0, text=text))

    once = PrintedOnce()
    assert said(0, 1) == ["a", "b"]
    assert said(0, 1, "second") == ["second"]
    assert said(1, 1) == said(1, 1, "second") == []
    assert said(1, 1, "third") == ["third"]
    assert said(1, 2) == ["a", "b"]
