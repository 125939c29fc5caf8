"""Where in the user's code an exception was raised: `user_frame`, and the way there: `user_frames`."""

from __future__ import annotations

import linecache
import os
import re
import textwrap
import traceback
from pathlib import Path
from types import CodeType, TracebackType

_GENERATED = "__autograph_generated_file"
_TOLD_BY_AUTOGRAPH = re.compile(r'^    (File "(.+)", line \d+, in \S+)  \*\n {8}(.*)', re.MULTILINE)
_USER_CODE = "in user code:\n"
_OF_KERAS = re.compile(
    r"Exception encountered when calling (\S+\(\))\.\n\n(.*?)\n\nArguments received by \1:\n.*", re.DOTALL
)
_OF_GRAPH = "Graph execution error:\n"
_TOLD_BY_GRAPH = re.compile(r'^  (File "(.+)", line (\d+), in \S+)$', re.MULTILINE)
_NODE = re.compile(r"\s*\[\[\{\{node ([^{}]+)\}\}\]\]|\s*\[Op:\w+\]$", re.MULTILINE)
_HELIOSTAT = str(Path(__file__).parents[2]) + os.sep
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def user_frame(error: BaseException) -> str:
    """The innermost frame that lies in neither an installed package nor Heliostat: ``file:line in function``.

    It is one of the error itself, or else of what the error was raised from. AutoGraph runs what it has made of a
    function: the lines of an error in there stand in its message. Of an exit in there, only the file and the function
    are known. An operation of a graph that fails when it runs tells in its message where it was made.
    """
    return next(filter(None, map(_own_frame, _with_causes(error))), "")


def _own_frame(error: BaseException) -> str:
    found = rewritten = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        if _is_users(code.co_filename, module):
            found = f'File "{code.co_filename}", line {line}, in {code.co_name}'
        elif code.co_filename.startswith("<") and module == "__main__":  # typed in, or sent as code without its file
            found = f"the script, line {line}, in {code.co_name}"
        source = frame.f_globals.get("__file__") or module
        if _GENERATED in code.co_filename and _is_users(source, module):
            rewritten = f'File "{source}", in {code.co_name.removeprefix("tf__")}'
    told = [] if found else _told(error)
    return told[-1][0] if told else found or rewritten


def _told(error: BaseException) -> list[tuple[str, str]]:
    """(frame, line of code) of the user's that TensorFlow tells of, the innermost last.

    AutoGraph tells of an error's frames, and may have left out the frames themselves; a graph, of where an operation
    was made that has failed.
    """
    text, found = str(error), list[tuple[str, str, str]]()  # frame, file, line of code
    if text.startswith(_USER_CODE):
        found = _TOLD_BY_AUTOGRAPH.findall(text)
    elif text.startswith(_OF_GRAPH):
        told = _TOLD_BY_GRAPH.findall(text)
        found = [(where, file, linecache.getline(file, int(number)).strip()) for where, file, number in told]
    return [(where, code) for where, file, code in found if _is_users(file, "") and not file.startswith(_HELIOSTAT)]


def user_frames(error: BaseException) -> tuple[str, ...]:
    """The frames in the user's code, as Python shows them, from the outermost on; then those of the error's causes."""
    found = list[str]()
    for each in _with_causes(error):
        found += traceback.format_list(_own_frames(each.__traceback__))
        found += [f"  {where}\n    {code}\n" if code else f"  {where}\n" for where, code in _told(each)]
    return tuple(dict.fromkeys(each.rstrip("\n") for each in found))


def one_reason(error: BaseException) -> str:
    """The error as ``Class: text``, without what libraries wrap around a text.

    Of AutoGraph's account of a step, whose lines `user_frames` has, the end is left; of Keras's account of a call, the
    message and which call it was; of a graph's account, the message and the operation.
    """
    text = _COLOUR.sub("", f"{type(error).__name__}: {error}".strip())
    name, _, account = text.partition(": ")
    if account.startswith(_USER_CODE):
        paragraphs = textwrap.dedent(account.removeprefix(_USER_CODE)).strip("\n").split("\n\n")
        text = "\n\n".join(paragraphs[1:]).strip() or text
        name, _, account = text.partition(": ")
    if account.startswith(_OF_GRAPH):
        text = f"{name}: {_without_places(account)}"
    while (wrapped := _OF_KERAS.fullmatch(account)) is not None:
        account = wrapped[2].strip()
        text = f"{name}: {account} (in {wrapped[1]})"
    return text


def _without_places(account: str) -> str:
    """What a graph says of an operation that has failed, without where it was made."""
    lines = account.removeprefix(_OF_GRAPH).splitlines()
    said = "\n".join(each for each in lines if each and not each.startswith(('  File "', "Detected at node ")))
    nodes = dict.fromkeys(filter(None, _NODE.findall(said)))
    return f"{_NODE.sub('', said).strip()} (in {', '.join(nodes)})" if nodes else said


def _with_causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while (cause := found[-1].__cause__) is not None and cause not in found:
        found.append(cause)
    return found


def _own_frames(trace: TracebackType | None) -> traceback.StackSummary:
    frames = (
        (frame, line)
        for frame, line in traceback.walk_tb(trace)
        if _is_users(frame.f_code.co_filename, frame.f_globals.get("__name__", ""))
        or (_is_typed(frame.f_code) and frame.f_globals.get("__name__") == "__main__")
    )
    return traceback.StackSummary.extract(frames)


def _is_typed(code: CodeType) -> bool:
    return code.co_filename.startswith("<") and not code.co_filename.startswith("<frozen")


def _is_users(filename: str, module: str) -> bool:
    installed = f"{os.sep}site-packages{os.sep}" in filename or f"{os.sep}lib{os.sep}python3" in filename
    generated = filename.startswith("<") or _GENERATED in filename
    return not (installed or generated or module.split(".")[0] == "heliostat")
