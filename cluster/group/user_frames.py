"""Where in the user's code an exception was raised: `user_frame`."""

from __future__ import annotations

import os
import re
import traceback

_GENERATED = "__autograph_generated_file"
_TOLD_BY_AUTOGRAPH = re.compile(r'^    (File ".+", line \d+, in \S+)  \*', re.MULTILINE)


def user_frame(error: BaseException) -> str:
    """The innermost frame that lies in neither an installed package nor Heliostat: ``file:line in function``.

    AutoGraph runs what it has made of a function: the lines of an error in there stand in its message. Of an exit in
    there, only the file and the function are known.
    """
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
    told = _TOLD_BY_AUTOGRAPH.findall(str(error)) if rewritten and not found else ()
    return told[-1] if told else found or rewritten


def _is_users(filename: str, module: str) -> bool:
    installed = f"{os.sep}site-packages{os.sep}" in filename or f"{os.sep}lib{os.sep}python3" in filename
    generated = filename.startswith("<") or _GENERATED in filename
    return not (installed or generated or module.split(".")[0] == "heliostat")
