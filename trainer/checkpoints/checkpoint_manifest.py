"""The manifest of a checkpoint: its place in the run, the run's state outside tensors, its tensors; and its JSON form.

The JSON is standard: a float that JSON lacks is written as ``{"$float": "NaN"}``, ``"Infinity"`` or ``"-Infinity"``.
It carries the xxh3_128 of its own body, and only the exact bytes that were written are accepted back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xxhash

from ..errors import CheckpointError, DamagedCheckpointError
from .checkpoint_tensors import TensorEntry, is_count

FORMAT_NAME = "heliostat-checkpoint"
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 2**28

_FLOAT_KEY = "$float"
_NAME = re.compile(r"(\d{6,})-(\d{8,})\.g(\d+)", re.ASCII)


def checkpoint_name(epoch: int, step: int, generation: int) -> str:
    """The folder of a checkpoint, such as ``000003-00000120.g7``. Raises CheckpointError for a negative number."""
    if min(epoch, step, generation) < 0:
        raise CheckpointError(f"There is no checkpoint of epoch {epoch}, step {step}, generation {generation}.")
    return f"{epoch:06d}-{step:08d}.g{generation}"


def parse_checkpoint_name(name: str) -> tuple[int, int, int] | None:
    """(epoch, step, generation) of a name that `checkpoint_name` made; None for any other."""
    match = _NAME.fullmatch(name)
    numbers = (int(match[1]), int(match[2]), int(match[3])) if match else None
    return numbers if numbers and checkpoint_name(*numbers) == name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointManifest:
    """Everything about a checkpoint but the tensors' values.

    Args:
        generation: of the worker group that wrote it.
        epoch, step: the data position: before `step` of `epoch`.
        begun: the epoch's begin hooks have run.
        identity: what must be equal to continue (data fingerprint, seed, num_microbatches ...).
        history: one mapping per finished epoch.
        extra: the session's own.
        tensors: in the order in which they were written.

    `identity`, `history` and `extra` are copied and become plain dicts, lists, str, int, float, bool and None; tuples
    become lists, the order of keys stays. Raises CheckpointError, naming the place, for anything else in them.
    """

    generation: int
    epoch: int
    step: int
    begun: bool
    identity: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    extra: Mapping[str, Any]
    tensors: tuple[TensorEntry, ...]

    def __post_init__(self) -> None:
        for field in ("generation", "epoch", "step"):
            if not is_count(getattr(self, field)):
                raise CheckpointError(f"{field} is {getattr(self, field)!r}; it must be an integer of at least 0.")
        if not isinstance(self.begun, bool):
            raise CheckpointError(f"begun is {self.begun!r}; it must be True or False.")
        for field in ("identity", "extra"):
            object.__setattr__(self, field, _plain_mapping(getattr(self, field), field))
        history = tuple(_plain_mapping(item, f"history[{i}]") for i, item in enumerate(self.history))
        object.__setattr__(self, "history", history)
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"Tensor {twice!r} is listed twice; the names of a checkpoint's tensors differ.")

    @property
    def name(self) -> str:
        """The folder it belongs in."""
        return checkpoint_name(self.epoch, self.step, self.generation)


def manifest_to_bytes(manifest: CheckpointManifest) -> bytes:
    """The content of manifest.json. Raises CheckpointError if it is larger than MAX_MANIFEST_BYTES."""
    body = {
        "generation": manifest.generation,
        "epoch": manifest.epoch,
        "step": manifest.step,
        "begun": manifest.begun,
        "identity": _to_json(manifest.identity),
        "history": _to_json(manifest.history),
        "extra": _to_json(manifest.extra),
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "xxh3_128": t.xxh3} for t in manifest.tensors
        ],
    }
    raw = _encode(
        {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, "xxh3_128": _body_digest(body), "body": body}
    )
    if len(raw) > MAX_MANIFEST_BYTES:
        raise CheckpointError(
            f"The manifest of checkpoint {manifest.name} has {len(raw)} bytes, more than {MAX_MANIFEST_BYTES}. "
            "It holds what belongs into tensors: look at what callbacks keep in their state."
        )
    return raw


def manifest_from_bytes(raw: bytes, path: str) -> CheckpointManifest:
    """What `manifest_to_bytes` made; `path` is for messages.

    Raises DamagedCheckpointError for anything else, and for another format version.
    """
    try:
        content = json.loads(raw)
        exact = _encode(content) == raw
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path} is not valid JSON ({error}). It was cut short or altered.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT_NAME:
        raise DamagedCheckpointError(f'{path} is no manifest of a checkpoint: it lacks "format": "{FORMAT_NAME}".')
    version = content.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise DamagedCheckpointError(
            f"{path} has format version {version!r}; this Heliostat reads {FORMAT_VERSION}. "
            "It was altered, or written by a newer Heliostat: then upgrade this one."
        )
    body, stated = content.get("body"), content.get("xxh3_128")
    found = _body_digest(body)
    if stated != found or not exact:
        raise DamagedCheckpointError(
            f"{path} states xxh3_128 {stated}, its body has {found}"
            f"{'' if exact else ', and its bytes are not those that were written'}. It was altered."
        )
    try:
        return _from_body(body)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, CheckpointError) as error:
        raise DamagedCheckpointError(f"{path} lacks a value or holds one that makes no sense: {error!r}") from error


def _from_body(body: Any) -> CheckpointManifest:
    tensors = tuple(
        TensorEntry(name=item["name"], shape=tuple(item["shape"]), dtype=item["dtype"], xxh3=item["xxh3_128"])
        for item in body["tensors"]
    )
    return CheckpointManifest(
        generation=body["generation"],
        epoch=body["epoch"],
        step=body["step"],
        begun=body["begun"],
        identity=_from_json(body["identity"]),
        history=tuple(_from_json(body["history"])),
        extra=_from_json(body["extra"]),
        tensors=tensors,
    )


def _body_digest(body: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, separators=(",", ":")).encode())


def _encode(content: Any) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _plain_mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{where} of a checkpoint is a {type(value).__name__}; it must be a mapping.")
    try:
        plain: dict[str, Any] = _plain(value, where)
    except RecursionError:
        raise CheckpointError(f"{where} of a checkpoint is nested too deeply, or contains itself.") from None
    return plain


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):  # also of subclasses, such as np.float64
            return kind(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise CheckpointError(
            f"{where} of a checkpoint is a {type(value).__module__}.{type(value).__name__}, which JSON cannot hold. "
            "Make it a plain number, text, list or dict first; arrays belong into the tensors."
        )
    for key in value:
        if not isinstance(key, str) or key == _FLOAT_KEY:
            raise CheckpointError(
                f"{where} of a checkpoint has the key {key!r}; keys are text, and not {_FLOAT_KEY!r}."
            )
    return {str(key): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT_KEY: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if _FLOAT_KEY in value:
            return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}[value[_FLOAT_KEY]]
        return {key: _from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return value
