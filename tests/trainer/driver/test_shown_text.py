"""What of other people's text reaches the screen and the record."""

from __future__ import annotations

import pytest
from heliostat.trainer.driver.shown_text import masked, masked_arguments, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a × b\tc\nd", "a × b\tc\nd"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07\x1b[2J\x9b1A", r"\x1b]0;title\x07\x1b[2J\x9b1A"),
        ("over\rwritten\x08\x7f", r"over\rwritten\x08\x7f"),
        ("abc\u202edef\u2028", r"abc\u202edef\u2028"),
    ],
)
def test_no_terminal_obeys_what_is_shown(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["train.py", "--epochs", "3", "-v"], ["train.py", "--epochs", "3", "-v"]),
        (
            ["--password=x y", "--db-password", "x", "-token", "x"],
            ["--password=***", "--db-password", "***", "-token", "***"],
        ),
        (["--hfToken=x", "--API_KEY", "x", "aws.secret=x"], ["--hfToken=***", "--API_KEY", "***", "aws.secret=***"]),
        (["--token", "--epochs", "3"], ["--token", "--epochs", "3"]),
        (["--tokenizer", "bert", "--max-tokens=512", "--key-path", "k", "--monkey=1"],) * 2,
        (
            ["s3://id:secret@bucket/x", "--data=gs://u@b/x?sig=1&token=abc&n=2&X-Amz-Signature=e"],
            ["s3://***@bucket/x", "--data=gs://***@b/x?sig=***&token=***&n=2&X-Amz-Signature=***"],
        ),
        (["mail@host", "a://b/c@d", ""], ["mail@host", "a://b/c@d", ""]),
    ],
)
def test_secrets_of_a_command_line_are_masked_and_nothing_else(given, kept):
    assert masked_arguments(given) == kept


def test_uris_in_an_error_are_masked():
    assert masked("no s3://id:pw@b/x; nor hdfs://u@h") == "no s3://***@b/x; nor hdfs://***@h"
    assert masked("no s3://id:p/w#/?@b/x@y nor http://h:80/a@b") == "no s3://***@b/x@y nor http://h:80/a@b"
