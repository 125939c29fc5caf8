"""The cases of the verdict benchmark: twenty, the same for the same seed, each with what it is compared with."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "benchmarks"
CAUSES = {"input", "slow worker", "network", "callbacks", "checkpoints", "small batches"}


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script, no module of the package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import verdict

    return verdict


def test_a_seed_draws_twenty_cases_of_all_causes_and_another_seed_others(verdict: ModuleType) -> None:
    drawn = verdict.cases(3)
    assert len(drawn) == 20
    assert drawn == verdict.cases(3) != verdict.cases(4)
    assert set().union(*(case.without for case in drawn)) == CAUSES
    assert {len(case.without) for case in drawn} == {0, 1, 2}


def test_what_a_case_is_compared_with_lacks_its_cause_and_nothing_else(verdict: ModuleType) -> None:
    for case in verdict.cases(5):
        for cause, without in case.without.items():
            changed = {name for name in case.planted.__slots__ if getattr(without, name) != getattr(case.planted, name)}
            assert changed
            assert changed <= ({"batch"} if cause == "small batches" else set(verdict.NO_CAUSE[cause]))


def test_a_promise_is_kept_within_a_factor(verdict: ModuleType) -> None:
    assert verdict.kept_promise({"promised": 3.0, "brought": 2.01}) is True
    assert verdict.kept_promise({"promised": 3.0, "brought": 1.99}) is False
    assert verdict.kept_promise({"promised": 1.0, "brought": 1.6}) is False
    assert verdict.kept_promise({"promised": 1.0, "brought": ""}) is None
