"""What is in an encoded picture: whether it can be decoded to the pixels that its file shows, and how it is turned.

Training decodes with TensorFlow (`views.decode`), which passes over some things that a file holds: the EXIF orientation
of a JPEG or PNG, with which a camera says how it was held (counted here, or applied), an alpha channel, the lower half
of 16 bits, all pictures of an animation but the first (counted). Heads are looked at byte by byte: Pillow would tell,
but nothing else here needs it. (Layouts: CIPA DC-008 for EXIF, w3.org/TR/png, GIF89a.)
"""

from __future__ import annotations

import re
import struct

import numpy as np
import numpy.typing as npt

from ..views.decode import decode_image

_JPEG, _PNG, _BMP, _GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8"
_OF_TENSORFLOW = re.compile(r"\{\{.*?\}\} | \[Op:.*\]")
_ORIENTATION = 0x0112
_GIF_FRAME = re.compile(rb"!\xf9\x04.{4}\0[,!]", re.DOTALL)  # a graphic control extension, and what follows it


def why_not(data: bytes) -> str | None:
    """Why a picture cannot be decoded to what it shows, None if it can; decodes it."""
    if not data.startswith((_JPEG, _PNG, _BMP, _GIF)):
        start = data[:8].hex(" ") or "nothing"
        return f"it is no JPEG, PNG, BMP or GIF: it starts with {start}"
    try:
        decoded(data)
    except ValueError as error:
        return _OF_TENSORFLOW.sub("", str(error))
    return None


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    """The pixels uint8 [height, width, 3] as training decodes them; raises ValueError."""
    return decode_image(data, 3)


def passed_over(data: bytes) -> list[str]:
    """What `decode()` does not give of a picture, in words; its orientation is another matter."""
    found = []
    if has_alpha(data):
        found.append("an alpha channel, which decode() leaves out unless channels=4")
    if data.startswith(_PNG) and data[24:25] == b"\x10":
        found.append("16 bits per channel, of which decode() gives the upper 8")
    if b"acTL" in _png_head(data) or (data.startswith(_GIF) and len(_GIF_FRAME.findall(data)) > 1):
        found.append("an animation, of which decode() gives the first picture")
    return found


def has_alpha(data: bytes) -> bool:
    """Whether a picture is a PNG with an alpha channel, or with colours that are transparent."""
    return data.startswith(_PNG) and (data[25:26] in (b"\4", b"\6") or b"tRNS" in _png_head(data))


def _png_head(data: bytes) -> bytes:
    return data.partition(b"IDAT")[0] if data.startswith(_PNG) else b""


def orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG or PNG, 1 (upright) to 8; 1 if there is none."""
    mark = b"eXIf" if data.startswith(_PNG) else b"Exif\0\0"
    _, _, exif = data.partition(mark)
    try:
        found = _tag(exif)
    except struct.error:  # cut short
        return 1
    return found if 1 <= found <= 8 else 1


def turned(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Pixels [height, width, channels] as they are seen with that EXIF orientation applied."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def upright(data: bytes) -> bytes:
    """A picture turned as its EXIF orientation says, as a PNG, which loses nothing of 8 bits; raises ValueError."""
    import tensorflow as tf

    pixels = decode_image(data, 4 if has_alpha(data) else 3)
    with tf.device("CPU:0"):
        return bytes(tf.io.encode_png(turned(pixels, orientation(data))).numpy())


def _tag(exif: bytes) -> int:
    """The orientation in the first directory of TIFF data, 1 without one."""
    if not exif.startswith((b"II*\0", b"MM\0*")):
        return 1
    order = "<" if exif.startswith(b"II") else ">"
    place = struct.unpack_from(f"{order}I", exif, 4)[0]
    (count,) = struct.unpack_from(f"{order}H", exif, place)
    for number in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * number)
        if tag == _ORIENTATION:
            return int(value)
    return 1
