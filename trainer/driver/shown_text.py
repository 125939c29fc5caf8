"""Text from elsewhere on its way to the screen or into a run's record: no escapes for terminals, no secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"
# The last word of the name of what nobody else is to know: hf-token, API_KEY, dbPassword.
_SECRETS = {"credential", "credentials", "key", "pass", "passphrase", "passwd", "password", "pwd", "secret", "sig"}
_SECRETS |= {"signature", "token"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# A password may have slashes, as secret keys of AWS have; a port is none.
_USER = re.compile(r"(?<=://)(?:[^\s/@:]+:(?![0-9]*(?:[/?#]|$))[^\s@]*|[^\s/?#]*)@")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Whatever moves a cursor, ends a line or turns the direction of writing; but for newlines and tabs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""The text without colours, and with what else a terminal would obey written out (``\x1b``)."""
    return _CONTROL.sub(lambda found: ascii(found.group())[1:-1], _COLOUR.sub("", text))


def masked(text: str) -> str:
    """The text with the user, password, and secret parameters of every URI in it masked."""
    text = _USER.sub(f"{MASK}@", text)
    return re.sub(
        r"([?&])([^=&\s]+)=([^&\s#]*)",
        lambda found: f"{found[1]}{found[2]}={MASK if _is_secret(found[2]) else found[3]}",
        text,
    )


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line with the values of options such as ``--password=x`` and ``--api-key x``, and in URIs, masked."""
    found: list[str] = []
    secret_follows = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_option, is_secret = argument.startswith("-"), _is_secret(name)
        if secret_follows and not is_option:
            found.append(MASK)
        elif equals and is_secret:
            found.append(f"{name}={MASK}")
        else:
            found.append(masked(argument))
        secret_follows = is_option and is_secret and not equals
    return found


def _is_secret(name: str) -> bool:
    words = _WORD.findall(name)
    return bool(words) and words[-1].lower() in _SECRETS
