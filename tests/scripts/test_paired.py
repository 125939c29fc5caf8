"""The comparison of two checkouts: it finds a benchmark's figures among other words on its output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "benchmarks"
WORDS = "\x1b[33m(raylet)\x1b[0m A worker died {or was killed}: {} (1) memory, (2) ray stop\n"


@pytest.fixture
def paired(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import paired

    return paired


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import run

    return run


@pytest.mark.parametrize("indent", [None, 1])
def test_a_document_is_found_among_words_before_beside_and_behind_it(run: ModuleType, indent: int | None) -> None:
    document = {"heliostat": {"SIGKILL": {"stall_ms": {"p50": 1.5}}}}
    printed = json.dumps(document, indent=indent)
    assert run.document(WORDS + printed + "\n" + WORDS, "heliostat") == document
    assert run.document(WORDS.rstrip("\n") + printed, "heliostat") == document


def test_the_last_document_with_the_key_counts(run: ModuleType) -> None:
    printed = '{"rows": [1]}\n{"rows": [2]}\n{"other": {"rows": [3]}}\n'
    assert run.document(printed, "rows") == {"rows": [2]}


def test_output_without_a_document_is_named_with_its_end(run: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r'(?s)No JSON with "heliostat" .*ray stop'):
        run.document(WORDS, "heliostat")


def test_recovery_reads_what_an_older_checkout_prints(paired: ModuleType, tmp_path: Path) -> None:
    """Its script prints an indented document below and above other words."""
    costs = {name: {"p50": 2000.0} for name in ("detection_ms", "stall_ms", "stall_of_the_join_ms")}
    printed = WORDS + json.dumps({"heliostat": {"step_ms": {"p50": 10.0}, "SIGKILL": costs}}, indent=1) + "\n" + WORDS
    script = tmp_path / "scripts" / "benchmarks" / "recovery.py"
    script.parent.mkdir(parents=True)
    script.write_text(f"print({printed!r})")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    assert paired.recovery(tmp_path, []) == {
        "detection_ms": 2.0,
        "stall_ms": 2.0,
        "stall_of_the_join_ms": 2.0,
        "step_ms": 0.01,
    }
