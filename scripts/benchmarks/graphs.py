"""The traced graphs of steps of one phase, as hashes: whether a change of the engine has changed them.

    python scripts/benchmarks/graphs.py OTHER_PYTHON

OTHER_PYTHON is the interpreter of another checkout that has this project installed, of the commit before, say. Both
train the same models of `hashes.py` for one step, in all three loops, on one or two replicas; of each traced graph, of
training and of validation, the SHA-256 of its `GraphDef` must be the same. Numbers that count what was made before in
the process, in the names of functions and of captured tensors, are taken out. The last line says how many were
compared; 1 where one differs.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from run import child  # type: ignore[import-not-found]

FUNCTION = re.compile(r"(__(?:inference|forward|backward)_\w+?|_rewritten|_noinline)_\d+")
TENSOR = re.compile(r'(?<=["/])\d+(?=[":])')
LAYOUTS = ((0, 1), (1, 2))


def trained_graphs() -> dict[str, str]:
    """Hashes of all graphs that are traced on the way, by model, loop and layout, in order."""
    import hashes
    from heliostat.trainer import Trainer
    from heliostat.trainer.config import LOOP_NAMES
    from heliostat.trainer.engine import per_replica
    from heliostat.trainer.engine.runtime import set_up

    set_up(replicas=2, threads=1)
    found: dict[str, str] = {}
    here = ""
    make = per_replica.PerReplica.__init__

    def noted(self: Any, *arguments: Any, **named: Any) -> None:
        make(self, *arguments, **named)
        found[f"{here}, graph {sum(name.startswith(here) for name in found)}"] = hash_of(self.graph)

    per_replica.PerReplica.__init__ = noted
    for build_model in (hashes.chapter, hashes.normalised, hashes.plain):
        for (workers, replicas), loop in zip(LAYOUTS * 2, LOOP_NAMES, strict=False):
            here = f"{build_model.__name__}, {workers} x {replicas}, {loop}"
            arguments = {"workers": workers, "in_process": workers > 0, "replicas_per_worker": replicas}
            with tempfile.TemporaryDirectory() as folder:
                trainer = Trainer(build_model, num_microbatches=2, run_dir=Path(folder, "run"), seed=7, **arguments)
                data = hashes.rows_of(build_model, 16, 0)
                with trainer:
                    trainer.fit(data, validation_data=data, global_batch_size=16, epochs=1, loop=loop, verbose=0)
    return found


def hash_of(graph: Any) -> str:
    """SHA-256 of a graph in a form that does not depend on what was traced before."""
    definition = graph.as_graph_def()
    functions = [str(function) for function in definition.library.function]
    del definition.library.function[:]
    text = "\n".join([_without_counts(str(definition)), *sorted(map(_without_counts, functions))])
    return hashlib.sha256(text.encode()).hexdigest()


def _without_counts(text: str) -> str:
    """A definition in which captured tensors are numbered in the order in which they come."""
    names: dict[str, str] = {}
    return TENSOR.sub(lambda found: names.setdefault(found[0], f"captured {len(names)}"), FUNCTION.sub(r"\1", text))


def graphs_of(python: str) -> dict[str, str]:
    """The same by another interpreter, which runs this file with its own Heliostat."""
    found: dict[str, str] = child(__file__, "--print", key="graphs", python=python)["graphs"]
    return found


def main() -> int:
    """Print, or compare."""
    if sys.argv[1:] == ["--print"]:
        print(json.dumps({"graphs": trained_graphs()}))
        return 0
    here, there = graphs_of(sys.executable), graphs_of(sys.argv[1])
    differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    for name in differing:
        print(f"{name}: {there.get(name)} there, {here.get(name)} here")
    print(f"{len(here) - len(differing)} of {len(here)} graphs are the same")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
