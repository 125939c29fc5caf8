"""The comparison of two checkouts: it finds a benchmark's figures among other words on its output."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("indent", [None, 1])
def test_a_document_is_found_among_words_before_beside_and_behind_it(paired: ModuleType, indent: int | None) -> None:
    document = {"heliostat": {"SIGKILL": {"stall_ms": {"p50": 1.5}}}}
    printed = json.dumps(document, indent=indent)
    assert paired.document(WORDS + printed + "\n" + WORDS, "heliostat") == document
    assert paired.document(WORDS.rstrip("\n") + printed, "heliostat") == document


def test_the_last_document_with_the_key_counts(paired: ModuleType) -> None:
    printed = '{"rows": [1]}\n{"rows": [2]}\n{"other": {"rows": [3]}}\n'
    assert paired.document(printed, "rows") == {"rows": [2]}


def test_output_without_a_document_is_named_with_its_end(paired: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r'(?s)No JSON with "heliostat" .*ray stop'):
        paired.document(WORDS, "heliostat")


def test_recovery_reads_what_an_older_checkout_prints(
    paired: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    costs = {name: {"p50": 2000.0} for name in ("detection_ms", "stall_ms", "stall_of_the_join_ms")}
    printed = WORDS + json.dumps({"heliostat": {"step_ms": {"p50": 10.0}, "SIGKILL": costs}}, indent=1)
    monkeypatch.setattr(paired, "output_of", lambda *_: printed)
    assert paired.recovery(tmp_path, []) == {
        "detection_ms": 2.0,
        "stall_ms": 2.0,
        "stall_of_the_join_ms": 2.0,
        "step_ms": 0.01,
    }
