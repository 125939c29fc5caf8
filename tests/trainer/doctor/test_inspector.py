"""One process on each machine of a real Ray, which looks around, reads, writes, and tells what goes wrong there."""

from __future__ import annotations

import socket

import numpy as np
import psutil
import pytest
from heliostat.cluster.pools.ray_room import living_nodes
from heliostat.data import write_dataset
from heliostat.trainer.doctor import proofs
from heliostat.trainer.doctor.examination import node_of
from heliostat.trainer.doctor.inspector import Inspectors, digest_of

pytestmark = pytest.mark.ray


def test_a_machine_is_tried_and_what_fails_there_hides_nothing(ray_here, tmp_path):
    nodes = [node_of(each) for each in living_nodes()]
    with Inspectors(nodes) as inspectors:
        ahead_s, error_s = inspectors.ahead_s(nodes[0])
        assert abs(ahead_s) <= error_s + 0.05
        rows = {"x": np.arange(12.0)}
        dataset = write_dataset(tmp_path / "rows", rows)
        ((_, found),) = inspectors.ask("shards", nodes, "read", lambda node: (dataset, None)).found
        assert found == (digest_of(rows), False)
        (tmp_path / "rows" / dataset.shards[0].file).unlink()
        (lost,) = inspectors.ask("shards", nodes, "read", lambda node: (dataset, None)).findings
        assert lost.line.startswith(f"fail  shards       {socket.gethostname()}: ShardError: Shard")
        (kept,) = proofs.of_checkpoints(inspectors, nodes, tmp_path, None)
        assert kept.line.startswith("ok    checkpoint   written to this machine's disk and read back on 1")
        own = psutil.Process().children(recursive=True)  # and no other's on this machine
        (inspector,) = (each for each in own if each.name().startswith("ray::Inspector"))
        inspector.kill()
        (dead,) = inspectors.ask("clocks", nodes, "now_s").findings
        assert dead.state == "fail"
        assert "its process was lost" in dead.line
