"""The live block: what a screen shows of a run while it goes on, as a value, and how it is drawn.

At 80 columns and above it is this, and in fewer it leaves out what is least::

    epoch 3/10  ━━━━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━━━━━━━━━━━  412/1,250   2 min 10 s left
    loss 0.4123  accuracy 0.8712
    15,197 samples/s · 31 steps/s · all 10 epochs: 12 min 20 s left · checkpoint 8 s ago

    worker  host     device  microbatches   speed   data  others    memory
         0  node-a   4 GPUs             5   102 %    2 %     1 %    3.1 GB
         1  node-b   4 GPUs             3    61 %    1 %     4 %    3.0 GB

It is never wider than 80 columns: a terminal that is made narrower would wrap wider lines, and nobody could tell how
many to take away. Of many workers the slowest are shown, and how fast the others are. Colours say only what stands
there in numbers, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.text import Text

from ..config import OPEN_END
from ..errors.texts import duration_text, size_text
from ..jobs import Progress
from .doing import Doing
from .rhythm import Rest
from .words import epoch_of, metric, one_line, shortened, whole_duration
from .worker_table import MUCH, SLOW, WorkerTable

MAX_COLUMNS = 80
_MAX_ROWS = 8
_FEW_LINES = 12  # a terminal with fewer has no room for rows of workers, and for space above the block
_UNKNOWN = Rest()
_METRIC_LINES = 2
_LEAST_HOST = _LEAST_BAR = 8
_LEFT_OUT = ("device", "memory", "microbatches", "host", "others", "data")  # in this order, where a line is narrow
_LABEL, _MARKED, _BAR = "dim", "yellow", "cyan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What is shown now; empty parts are left out.

    Attributes:
        progress: of the running epoch.
        epochs: number of the last one.
        step_s: how long a step takes; likewise `rows_per_s`. None while that is not known.
        rest: how long the rest takes.
        table: of the workers.
        doing: what else is done, or waited for, and for how many seconds.
        checkpoint_s: how many seconds ago a checkpoint counted; None without one.
    """

    progress: Progress | None = None
    epochs: int = 0
    step_s: float | None = None
    rows_per_s: float | None = None
    rest: Rest = _UNKNOWN
    table: WorkerTable | None = None
    doing: Doing | None = None
    doing_s: float = 0.0
    checkpoint_s: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return self.progress is None and self.doing is None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it: see `rich.console.Console`."""
        width = min(options.max_width, MAX_COLUMNS)
        for line in _lines(self, width, console, options):
            line.no_wrap = True
            yield line


def _lines(block: Block, width: int, console: Console, options: ConsoleOptions) -> Iterator[Text]:
    has_room = console.height >= _FEW_LINES
    if block.progress is not None:
        if has_room:
            yield Text()
        head = epoch_of(block.progress.epoch, block.epochs)
        how_far = f"{block.progress.step:,}/{block.progress.steps:,}"
        bar = _Bar(head, block.progress.step, block.progress.steps, how_far, (_left(block.rest.epoch_s),))
        yield bar.line(width, console, options)
        yield from map(Text, _metric_lines(block.progress.logs, width))
        if line := _speed_line(block, "|" if options.ascii_only else "·", width):
            yield Text(line, style=_LABEL)
    if block.table is not None and block.table.rows and has_room:
        yield Text()
        yield from _workers(block.table.shortened(min(_MAX_ROWS, console.height - 9)), width)
    if block.doing is not None:
        yield _doing_bar(block.doing, block.doing_s).line(width, console, options)


# -- lines with a bar -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bar:
    """A line that says how far something is.

    Attributes:
        head: what.
        done: how much of `total`; there is no bar without a total.
        total: see `done`.
        how_far: the same in words.
        more: what stands behind it as long as there is room: the rate, and the time left.
    """

    head: str
    done: int
    total: int | None
    how_far: str
    more: tuple[str, ...] = ()

    def line(self, width: int, console: Console, options: ConsoleOptions) -> Text:
        """The line; in a narrow one the last texts are left out, then the bar."""
        more = [text for text in self.more if text]
        while (room := width - sum(cell_len(text) + 2 for text in (self.head, self.how_far, *more))) < _LEAST_BAR:
            if not more:
                break
            more.pop()
        behind = [Text(self.how_far), *(Text(text, style=_LABEL) for text in more)]
        if not self.total or room < _LEAST_BAR:
            return Text(shortened("  ".join(filter(None, (self.head, self.how_far, *more))), width))
        done = min(self.done, self.total)
        bar = ProgressBar(
            total=self.total, completed=done, width=room, style=_LABEL, complete_style=_BAR, finished_style=_BAR
        )
        drawn = Text.assemble(*((part.text, part.style or "") for part in console.render(bar, options)))
        drawn.truncate(room, pad=True)
        return Text("  ").join([Text(self.head), drawn, *behind])


def _doing_bar(doing: Doing, seconds: float) -> _Bar:
    if doing.unit:
        more = (doing.rate(seconds), _left(doing.left_s(seconds)))
        return _Bar(one_line(doing.what), doing.done, doing.total, doing.progress(), more)
    return _Bar(one_line(doing.what), 0, None, whole_duration(seconds) if seconds >= 1 else "")


def _left(seconds: float | None) -> str:
    return f"{whole_duration(seconds)} left" if seconds else ""


# -- lines of text ----------------------------------------------------------------------------------------------------


def _speed_line(block: Block, dot: str, width: int) -> str:
    parts = []
    if block.rows_per_s is not None:
        parts.append(f"{block.rows_per_s:,.0f} samples/s")
    if block.step_s:
        parts.append(f"{duration_text(block.step_s)} a step")
    if block.rest.run_s and 1 < block.epochs < OPEN_END:
        parts.append(f"all {block.epochs} epochs: {whole_duration(block.rest.run_s)} left")
    if block.checkpoint_s is not None:
        parts.append(f"checkpoint {whole_duration(block.checkpoint_s)} ago")
    while len(parts) > 1 and len(f" {dot} ".join(parts)) > width:
        parts.pop()
    return shortened(f" {dot} ".join(parts), width)


def _metric_lines(logs: Mapping[str, Any], width: int) -> Iterator[str]:
    """The metrics on as many lines as they may have; what has no place there is counted."""
    texts, line, lines_left = [metric(name, value) for name, value in logs.items()], "", _METRIC_LINES
    for number, text in enumerate(texts):
        if line and cell_len(f"{line}  {text}") > width:
            lines_left -= 1
            if not lines_left:
                more = f"  and {len(texts) - number} more"
                yield shortened(line, width - len(more)) + more
                return
            yield line
            line = ""
        line = shortened(f"{line}  {text}" if line else text, width)
    if line:
        yield line


# -- rows of workers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table.

    Attributes:
        heading: of it.
        cells: what stands in it, from the top.
        marked: which of them are marked.
        is_text: whether it begins at the left.
    """

    heading: str
    cells: tuple[str, ...]
    marked: tuple[bool, ...] = ()
    is_text: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, (self.heading, *self.cells)))

    def is_marked(self, number: int) -> bool:
        return bool(self.marked) and self.marked[number]

    def placed(self, text: str) -> str:
        """The text as wide as the column."""
        space = " " * (self.width - cell_len(text))
        return text + space if self.is_text else space + text


def _workers(table: WorkerTable, width: int) -> Iterator[Text]:
    columns = _fitting(_columns(table), width)
    yield Text("  ".join(column.placed(column.heading) for column in columns), style=_LABEL)
    for number in range(len(table.rows)):
        line = Text()
        for column in columns:
            line.append("  " if line else "")
            line.append(column.placed(column.cells[number]), _MARKED if column.is_marked(number) else "")
        yield line
    if more := table.num_workers - len(table.rows):
        speeds = f", at {_percent(table.others[0])} to {_percent(table.others[1])} of the speed" if table.others else ""
        yield Text(shortened(f"and {more} faster workers{speeds}", width), style=_LABEL)


def _columns(table: WorkerTable) -> list[_Column]:
    rows = table.rows

    inputs = [row.input_share for row in rows]
    speeds = [row.speed for row in rows]
    return [
        _Column("worker", tuple(str(row.worker) for row in rows)),
        _Column("host", tuple(one_line(row.host) for row in rows), is_text=True),
        _Column("device", (table.device,) * len(rows), is_text=True),
        _Column("microbatches", tuple(str(row.microbatches) for row in rows)),
        _Column("speed", tuple(map(_percent, speeds)), tuple(each is not None and each < SLOW for each in speeds)),
        _Column("data", tuple(map(_percent, inputs)), tuple(each is not None and each > MUCH for each in inputs)),
        _Column("others", tuple(_percent(row.wait_share) for row in rows)),
        _Column("memory", tuple(_size(row.memory_bytes) for row in rows)),
    ]


def _fitting(columns: list[_Column], width: int) -> list[_Column]:
    """The columns that a line has room for: long names of hosts are cut first, then columns are left out."""
    for dropped in ("", *_LEFT_OUT):
        columns = [column for column in columns if column.heading != dropped and any(column.cells)]
        room = width - sum(column.width + 2 for column in columns) + 2
        if room >= 0:
            return columns
        host = next((column for column in columns if column.heading == "host"), None)
        if host is not None and host.width + room >= _LEAST_HOST:
            cut = tuple(shortened(cell, host.width + room) for cell in host.cells)
            return [_Column("host", cut, is_text=True) if column is host else column for column in columns]
    return columns


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _size(num_bytes: int) -> str:
    return size_text(num_bytes) if num_bytes else "-"
