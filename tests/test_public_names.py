"""The public names, pinned: whoever adds or removes one says so here; and the trees of errors, with their meanings."""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import heliostat.data
import heliostat.trainer
import pytest

TRAINER = """
    CallDetachedError CallError
    CallbackFilesError CallbackStateError CheckpointError ConfigurationError DamagedCheckpointError
    DamagedRecordError DamagedStateError DataError EnvironmentVariableError EverySeconds EverySteps FetchError
    HandleError LeaseHeldError
    LeaseLostError MemoryExhaustedError ModelError NonfiniteGradientError NotCompiledError OtherBeginningError
    OtherEnvironmentError
    Result RunPausedError RuntimeSetupError SessionError StateNotKeptError StorageError Tracker Trainer TrainerError
    TrainingFailedError TrainingSession
    UnsupportedModelAttributeError UnsupportedModelChangeError UnsupportedModelError UnsupportedModelVariableError
    UnsupportedStepError UnsupportedStepInCallbackError ValueNotCarriedError WorkersDisagreeError
    global_mean global_sum
"""
DATA = """
    BadColumnError CacheError Column Dataset DatasetError DatasetExistsError DatasetNotFoundError DatasetWriter
    FittedPreprocessing ManifestError PlanError Ragged RemoteError RowError SelectionError ShardError SourceError
    TransformError UnknownColumnError convert fit_preprocessing from_arrow from_dataset from_generator from_pandas
    from_ray_dataset from_tf_dataset mix open_dataset row_uniform upload_dataset verify write_dataset
"""
# Of cluster nobody imports from the package itself: its errors reach users through the trainer's.
ERRORS = {"data": "DatasetError", "trainer": "TrainerError", "cluster": "ClusterError"}
BRANCH = re.compile(r"( *[│├└][ │├└─]*)(\w+) +\S.*")


@pytest.mark.parametrize(("package", "names"), [(heliostat.trainer, TRAINER), (heliostat.data, DATA)])
def test_these_are_the_public_names(package, names):
    assert package.__all__ == names.split()
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def errors_of(package: str) -> tuple[ModuleType, dict[str, type]]:
    """The module with a package's errors, and its errors by name."""
    module = importlib.import_module(f"heliostat.{package}.errors")
    base = getattr(module, ERRORS[package])
    found = {name: each for name, each in vars(module).items() if isinstance(each, type) and issubclass(each, base)}
    assert all(
        each.__module__ == module.__name__ or each.__module__.startswith(f"{module.__name__}.")
        for each in found.values()
    )
    return module, found


def tree_in(text: str, base: str) -> dict[str, str | None]:
    """Of every name in the tree that is drawn below `base`, the one that it hangs on."""
    lines = text.splitlines()
    root = next(number for number, line in enumerate(lines) if line.split()[:1] == [base])
    found: dict[str, str | None] = {base: None}
    above = [(lines[root].index(base), base)]
    for branch in map(BRANCH.fullmatch, lines[root + 1 :]):
        if branch is None:
            break
        above = [each for each in above if each[0] < len(branch[1])]
        found[branch[2]] = above[-1][1]
        above.append((len(branch[1]), branch[2]))
    return found


@pytest.mark.parametrize("package", ERRORS)
def test_every_error_is_in_the_tree_below_its_base(package):
    module, errors = errors_of(package)
    expected = {
        name: [base.__name__ for base in each.__bases__ if base.__name__ in errors] for name, each in errors.items()
    }
    found = tree_in(module.__doc__ or "", ERRORS[package])
    assert {name: [] if base is None else [base] for name, base in found.items()} == expected


@pytest.mark.parametrize("package", ["data", "trainer"])
def test_every_error_is_exported(package):
    exported = importlib.import_module(f"heliostat.{package}").__all__
    assert [name for name in errors_of(package)[1] if name not in exported] == []


def test_a_tree_is_read():
    text = """Errors.

    Base          all of them
    ├── One       the first
    │   └── Deep  inside
    └── Two       the second

    More about Base.
    """
    assert tree_in(text, "Base") == {"Base": None, "One": "Base", "Deep": "One", "Two": "Base"}
    assert tree_in(text.replace("the second", ""), "Base") == {"Base": None, "One": "Base", "Deep": "One"}
