"""Which frames of an exception are the user's, and what of its text is said in a line."""

from __future__ import annotations

from pathlib import Path

from heliostat.cluster.group import user_frames as user_frames_module
from heliostat.cluster.group.user_frames import one_reason, user_frame, user_frames

KERAS = (
    "Exception encountered when calling Outer.call().\n\n\x1b[1mException encountered when calling Inner.call().\n\n"
    "\x1b[1mno such shape\x1b[0m\n\nArguments received by Inner.call():\n  • x=1\x1b[0m\n\nArguments received by "
    "Outer.call():\n  • x=1\n  • mask=None"
)
AUTOGRAPH = (
    'in user code:\n\n    File "/a/train.py", line 3, in train_step  *\n        helper(x)\n    File "/a/train.py", '
    'line 8, in helper  *\n        x["w"]\n\n    KeyError: one\n    and two\n'
)

GRAPH = """Graph execution error:

Detected at node fold/Reshape defined at (most recent call last):
  File "/usr/lib/python3.11/threading.py", line 1002, in _bootstrap

  File "{own}", line 96, in on_replica

  File "/venv/lib/python3.11/site-packages/keras/src/layers/layer.py", line 1002, in __call__

  File "{path}", line 2, in call

Input to reshape is a tensor with 256 values, but the requested shape requires a multiple of 3
\t [[{{{{node fold/Reshape}}}}]] [Op:__inference_on_all_282]"""


def raised(path: Path, source: str) -> BaseException:
    path.write_text(source)
    try:
        exec(compile(source, str(path), "exec"), {"__name__": "mine"})
    except Exception as error:
        return error
    raise AssertionError("it came to its end")


def test_frames_are_the_users_own_then_those_of_the_cause(tmp_path):
    path = tmp_path / "train.py"
    error = raised(
        path,
        "import json\ndef made():\n    return {}['units']\ntry:\n    made()\nexcept KeyError as error:\n"
        "    raise ValueError('no') from error\n",
    )
    assert [each.splitlines()[0] for each in user_frames(error)][1:] == [
        f'  File "{path}", line 7, in <module>',
        f'  File "{path}", line 5, in <module>',
        f'  File "{path}", line 3, in made',
    ]
    assert user_frames(error)[-1].splitlines()[1] == "    return {}['units']"
    assert user_frame(error) == f'File "{path}", line 7, in <module>'


def test_where_no_frame_is_the_users_those_of_the_cause_are(tmp_path):
    cause = raised(tmp_path / "train.py", "def made():\n    return {}['units']\nmade()\n")
    error = ValueError("of nobody")
    error.__cause__ = cause
    cause.__cause__ = error
    assert user_frame(error) == f'File "{tmp_path / "train.py"}", line 2, in made'
    error.__cause__ = None
    assert (user_frame(error), user_frames(error)) == ("", ())


def test_frames_of_a_library_are_none(tmp_path):
    error = raised(tmp_path / "train.py", "import json\njson.loads('x')\n")
    here, script = user_frames(error)
    assert here.splitlines()[0].endswith("in raised")
    assert script.splitlines()[0] == f'  File "{tmp_path / "train.py"}", line 2, in <module>'


def test_autograph_tells_the_frames_in_its_text():
    assert user_frames(TypeError(AUTOGRAPH)) == (
        '  File "/a/train.py", line 3, in train_step\n    helper(x)',
        '  File "/a/train.py", line 8, in helper\n    x["w"]',
    )
    assert one_reason(TypeError(AUTOGRAPH)) == "KeyError: one\nand two"


def test_what_keras_wraps_around_a_text_is_left_out():
    assert one_reason(ValueError(KERAS)) == "ValueError: no such shape (in Inner.call())"
    assert one_reason(KeyError("x")) == "KeyError: 'x'"
    assert one_reason(KeyError()) == "KeyError:"


def test_an_operation_that_fails_in_a_graph_tells_where_it_was_made(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("def call(x):\n    return fold(x)\n")
    error = ValueError(GRAPH.format(path=path, own=user_frames_module.__file__))
    assert user_frame(error) == f'File "{path}", line 2, in call'
    assert user_frames(error) == (f'  File "{path}", line 2, in call\n    return fold(x)',)
    assert one_reason(error) == (
        "ValueError: Input to reshape is a tensor with 256 values, but the requested shape requires a multiple of 3 "
        "(in fold/Reshape)"
    )
    two = "Graph execution error:\n\n2 root error(s) found.\n  (0) INVALID\n\t [[{{node a}}]]\n\t [[{{node b}}]]"
    assert one_reason(ValueError(two)) == "ValueError: 2 root error(s) found.\n  (0) INVALID (in a, b)"
