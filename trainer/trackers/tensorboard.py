"""TensorBoard: event files, written by its own package, without TensorFlow.

As Keras's callback has it: folders ``train`` and ``validation``, so that a metric's two curves are one chart
(``epoch_loss``), by number of the epoch. How the workers spend their time is in ``workers``, by step of the run.
`RecordWriter` and messages of `tensorboard` are what other libraries without TensorFlow write such files with; its
`EventFileWriter` would load TensorFlow into the driver, which must leave GPUs alone.

A run that goes on adds files beside those that are there. Its first one begins with the step from which it goes on:
TensorBoard then leaves out what was written behind that step before.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..events import EpochRecord, Event, Resumed
from ..samples import Sample
from .numbers import epoch_metrics, event_text, parameters, sample_metrics, verdict_in
from .tracker import FOLDER, Tracker

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event as Message

_TRAIN, _VALIDATION, _WORKERS = "train", "validation", "workers"
_VERSION = "brain.Event:2"


class TensorBoardTracker(Tracker):
    """Writes event files.

    Args:
        path: where, in a folder with the name of the run's; None for the run folder.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._files: dict[str, EventFile] = {}
        self._run = Path()
        self._before: Sample | None = None
        self._next_epoch = 0

    @property
    def name(self) -> str:
        """What lines call it."""
        return "TensorBoard"

    def begin(self, path: Path, record: Mapping[str, Any]) -> None:
        """Files in a folder of the run; the configuration as a table."""
        self._close_files()
        self._run, self._before, self._next_epoch = path, None, 0
        folder = path / FOLDER / "tensorboard" if self._path is None else self._path / path.name
        self._files = {name: EventFile(folder / name) for name in (_TRAIN, _VALIDATION, _WORKERS)}
        rows = [f"| {name} | {value} |" for name, value in parameters(record).items()]
        self._files[_TRAIN].text("run", "\n".join(["| | |", "| --- | --- |", *rows]), 0)
        self._flush()

    def epoch(self, record: EpochRecord, epochs: int, seconds: float) -> None:
        """Its metrics, by number of the epoch; one that was computed again has the numbers that it had."""
        if record.epoch < self._next_epoch:
            return
        self._next_epoch = record.epoch + 1
        train, valid = dict[str, float](), dict[str, float]()
        for name, value in epoch_metrics(record, seconds).items():
            found = valid if name.startswith("val_") else train
            found[f"epoch_{name.removeprefix('val_').removeprefix('epoch_')}"] = value
        self._files[_TRAIN].scalars(train, record.epoch)
        self._files[_VALIDATION].scalars(valid, record.epoch)
        self._flush()

    def event(self, event: Event) -> None:
        """As text; where a run goes on, what was written behind that is taken back."""
        if isinstance(event, Resumed):
            self._next_epoch = event.epoch
            for name in (_TRAIN, _VALIDATION):
                self._files[name].goes_on_from(event.epoch)
        if text := event_text(event):
            self._files[_TRAIN].text(f"events/{event.event}", text, self._next_epoch)
            self._flush()

    def sample(self, sample: Sample) -> None:
        """What the workers do, by step of the run."""
        if self._before is None:
            self._files[_WORKERS].goes_on_from(sample.step)
        elif sample.step <= self._before.step:
            return
        self._files[_WORKERS].scalars(sample_metrics(sample, self._before), sample.step)
        self._before = sample
        self._flush()

    def end(self, record: Mapping[str, Any]) -> None:
        """The state and the verdict, as text."""
        text = "\n\n".join(filter(None, [f"The run is {record['state']}.", verdict_in(self._run)]))
        self._files[_TRAIN].text("end", text, self._next_epoch)
        self._flush()
        self._close_files()

    def close(self) -> None:
        """Close the files."""
        self._close_files()

    def _flush(self) -> None:
        for each in self._files.values():
            each.flush()

    def _close_files(self) -> None:
        for each in self._files.values():
            each.close()
        self._files = {}


class EventFile:
    """One event file, made when something is written into it.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, at a step."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        if values:
            found = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            self._write(event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=found)))

    def text(self, name: str, text: str, step: int) -> None:
        """A text in Markdown, at a step."""
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        value = summary_pb2.Summary.Value(
            tag=name,
            metadata=summary_pb2.SummaryMetadata(plugin_data=plugin),
            tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()]),
        )
        self._write(event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=[value])))

    def goes_on_from(self, step: int) -> None:
        """What earlier files in the folder have at this step, or behind it, does not count."""
        from tensorboard.compat.proto import event_pb2

        begins = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(wall_time=time.time(), step=step, session_log=begins))

    def flush(self) -> None:
        """Let readers see what was written."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, message: Message) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            now = time.time()
            name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
            self._file = (self._folder / name).open("xb")
            RecordWriter(self._file).write(event_pb2.Event(wall_time=now, file_version=_VERSION).SerializeToString())
        RecordWriter(self._file).write(message.SerializeToString())
