"""The manifest of a checkpoint: its place in the run, the run's state outside tensors, its tensors; and its JSON form.

The JSON is standard (`values`). It carries the xxh3_128 of its own body, and only the exact bytes that were written are
accepted back. Version 2 is written; version 1 is read, too: there `gradient_dtype` has another name, and a finished
epoch in `history` is another line (`EpochRecord.from_json` reads both).

Here is also what a manifest is asked before a run goes on: whether its identity is that of the run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from ..errors import CheckpointError, ConfigurationError, DamagedCheckpointError, ValueNotCarriedError
from .tensors import TensorEntry, is_count
from .values import Json, decode, encode

FORMAT_NAME = "heliostat-checkpoint"
FORMAT_VERSION, READ_VERSIONS = 2, (1, 2)
MAX_MANIFEST_BYTES = 2**28

_OLD_NAMES = {"wire_dtype": "gradient_dtype"}  # parts of an identity
_MAX_DIFFERING = 6  # parts of an identity that a message names
_NAME = re.compile(r"(\d{6,})-(\d{8,})\.g(\d+)", re.ASCII)


def checkpoint_name(epoch: int, step: int, generation: int) -> str:
    """The folder of a checkpoint, such as ``000003-00000120.g7``.

    Args:
        epoch, step: the data position, from 0.
        generation: of the worker group that writes it.

    Raises:
        CheckpointError: a number is negative.
    """
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
        identity: what must be equal to continue (data fingerprint, seed, num_microbatches ...); a value without arrays.
        history: one mapping per finished epoch; values without arrays.
        extra: the session's own, as `values.encode` made it: its arrays are among the tensors.
        tensors: in the order in which they were written.

    Raises:
        CheckpointError: a field makes no sense; it is named.
    """

    generation: int
    epoch: int
    step: int
    begun: bool
    identity: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    extra: dict[str, Any]
    tensors: tuple[TensorEntry, ...]

    def __post_init__(self) -> None:
        for field in ("generation", "epoch", "step"):
            if not is_count(getattr(self, field)):
                raise CheckpointError(f"{field} is {getattr(self, field)!r}; it must be an integer of at least 0.")
        if not isinstance(self.begun, bool):
            raise CheckpointError(f"begun is {self.begun!r}; it must be True or False.")
        numbered = {f"history[{i}]": epoch for i, epoch in enumerate(self.history)}
        for field, mapping in {"identity": self.identity, "extra": self.extra, **numbered}.items():
            if not isinstance(mapping, dict):
                raise CheckpointError(f"{field} of a checkpoint is a {type(mapping).__name__}; it must be a dict.")
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"Tensor {twice!r} is listed twice; the names of a checkpoint's tensors differ.")

    @property
    def name(self) -> str:
        """The folder it belongs in."""
        return checkpoint_name(self.epoch, self.step, self.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten:
    """The chief tells the driver, which commits it: the tensors of a checkpoint are written.

    Attributes:
        manifest: what the worker knows of it; identity and history are the driver's.
        seconds: how long the steps waited for the copy; `write_s` how long the writing took beside them.
    """

    manifest: CheckpointManifest
    seconds: float
    write_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalStateWritten:
    """The worker that delivers tells the driver, which commits it: the state in which a run ended is written."""

    manifest: CheckpointManifest


def manifest_to_bytes(manifest: CheckpointManifest) -> bytes:
    """The content of manifest.json.

    Raises:
        CheckpointError: it is larger than MAX_MANIFEST_BYTES, or holds what is no value (names the place).
    """
    try:
        identity = encode(manifest.identity, None, "identity")
        history = encode(list(manifest.history), None, "history")
    except ValueNotCarriedError as error:
        raise CheckpointError(f"Checkpoint {manifest.name} cannot be made: {error}") from error
    tensors = [{"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "xxh3_128": t.xxh3} for t in manifest.tensors]
    body = {
        "generation": manifest.generation,
        "epoch": manifest.epoch,
        "step": manifest.step,
        "begun": manifest.begun,
        "identity": identity,
        "history": history,
        "extra": manifest.extra,
        "tensors": tensors,
    }
    raw = _text({"format": FORMAT_NAME, "format_version": FORMAT_VERSION, "xxh3_128": _body_digest(body), "body": body})
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
        exact = _text(content) == raw
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path} is not valid JSON ({error}). It was cut short or altered.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT_NAME:
        raise DamagedCheckpointError(f'{path} is no manifest of a checkpoint: it lacks "format": "{FORMAT_NAME}".')
    version = content.get("format_version")
    if version not in READ_VERSIONS or isinstance(version, bool):
        raise DamagedCheckpointError(
            f"{path} has format version {version!r}; this Heliostat reads {' and '.join(map(str, READ_VERSIONS))}. "
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


def identity_of_today(recorded: dict[str, Any]) -> dict[str, Any]:
    """The identity of a run as this version names its parts, of one that this version or the one before recorded."""
    return {_OLD_NAMES.get(name, name): value for name, value in recorded.items()}


def check_identity(recorded: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    """Compare how a run began with what it is to go on with.

    Args:
        recorded: its identity, as the run's files have it.
        now: what it would be now.
        run_dir: the run folder, for the message.

    Raises:
        ConfigurationError: they differ; it names in what.
    """
    flat_before, flat_now = _flat(recorded), _flat(now)
    differing = [name for name in {**flat_before, **flat_now} if flat_before.get(name) != flat_now.get(name)]
    if not differing:
        return
    lines = [
        f"  {name}: it began with {flat_before.get(name)!r}, and now it is {flat_now.get(name)!r}"
        for name in differing[:_MAX_DIFFERING]
    ]
    if len(differing) > _MAX_DIFFERING:
        lines.append(f"  and {len(differing) - _MAX_DIFFERING} more")
    raise ConfigurationError(
        f"The run in {str(run_dir)!r} cannot go on, because its result would be that of neither the old nor the new "
        "run:\n" + "\n".join(lines) + "\nPut back what has changed, or begin a new run with another run_dir."
    )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = value
    return flat


def _from_body(body: Any) -> CheckpointManifest:  # Any: JSON whose hash is right, and nothing else is known
    tensors = tuple(
        TensorEntry(name=item["name"], shape=tuple(item["shape"]), dtype=item["dtype"], xxh3=item["xxh3_128"])
        for item in body["tensors"]
    )
    return CheckpointManifest(
        generation=body["generation"],
        epoch=body["epoch"],
        step=body["step"],
        begun=body["begun"],
        identity=identity_of_today(decode(body["identity"], {})),
        history=tuple(decode(body["history"], {})),
        extra=body["extra"],
        tensors=tensors,
    )


def _body_digest(body: Json) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, separators=(",", ":")).encode())


def _text(content: Json) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
