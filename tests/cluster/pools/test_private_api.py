"""The contract with Ray's private parts: they are there, and one that is missing is named before Ray is joined."""

from __future__ import annotations

import sys

import pytest
import ray
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.pools.private_api import (
    alive_actors,
    asks_for_tokens,
    authorization,
    autoscales,
    check_private_api,
    dead_process,
    draining_nodes,
    living_jobs,
    own_node,
    package,
    started_here,
)
from heliostat.cluster.pools.ray_session import join_ray
from ray._private import state


@ray.remote(num_cpus=0)
class Idle:
    """An actor."""


def test_ray_here_has_all_names():
    check_private_api()


@pytest.mark.ray
def test_what_is_read_of_a_real_ray_has_the_form_that_is_expected(ray_here):
    own = ray.get_runtime_context().get_job_id()
    assert own in living_jobs()
    assert "pytest" in living_jobs()[own].command
    actor = Idle.remote()
    ray.get(actor.__ray_ready__.remote())
    assert (own, "Idle") in alive_actors()
    ray.kill(actor)
    assert autoscales() is False
    assert asks_for_tokens()
    assert authorization().startswith("Bearer ")
    assert started_here()
    assert dead_process() == ""
    assert list(draining_nodes()) == []
    context = ray.get_runtime_context()
    node = own_node(context.gcs_address)
    assert node.node_id == context.get_node_id()
    assert (node.log_dir / "raylet.out").exists()
    assert package(context.gcs_address, "gcs://_ray_pkg_never_put.zip") is None


def test_a_missing_name_is_told_with_the_versions_that_were_tried(monkeypatch):
    monkeypatch.delattr(state.GlobalState, "get_draining_nodes")
    told = r"Ray .* lacks ray\._private\.state\.state\.get_draining_nodes, which .* tried with Ray 2\.60"
    with pytest.raises(PlacementError, match=told):
        join_ray(None, num_cpus=1)


def test_a_missing_module_is_told_by_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray._private.authentication.authentication_utils", None)
    with pytest.raises(PlacementError, match=r"lacks ray\._private\.authentication\.authentication_utils\.is_token"):
        check_private_api()
