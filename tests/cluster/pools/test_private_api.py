"""The contract with Ray's private parts: they are there, and one that is missing is named before Ray is joined."""

from __future__ import annotations

import sys

import pytest
from heliostat.cluster.errors import PlacementError
from heliostat.cluster.pools.private_api import check_private_api
from heliostat.cluster.pools.ray_session import join_ray
from ray._private import state


def test_ray_here_has_all_names():
    check_private_api()


def test_a_missing_name_is_told_with_the_versions_that_were_tried(monkeypatch):
    monkeypatch.delattr(state.GlobalState, "get_draining_nodes")
    told = r"Ray .* lacks ray\._private\.state\.state\.get_draining_nodes, which .* tried with Ray 2\.60"
    with pytest.raises(PlacementError, match=told):
        join_ray(None, num_cpus=1)


def test_a_missing_module_is_told_by_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray._private.authentication.authentication_utils", None)
    with pytest.raises(PlacementError, match=r"lacks ray\._private\.authentication\.authentication_utils\.is_token"):
        check_private_api()
