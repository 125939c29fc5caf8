"""The manifest for Kubernetes: it names the Ray that is tried, lets nobody in without a token, keeps run folders.

Its schema was checked by hand against KubeRay's (`docs/how-to/kubernetes.md` says which): a copy here would be larger
than the trainer.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import yaml
from heliostat.trainer.environment import HOME

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster():
    found = list(yaml.safe_load_all((ROOT / "scripts" / "examples" / "kuberay.yaml").read_text()))
    (volume,) = (each for each in found if each["kind"] == "PersistentVolumeClaim")
    (cluster,) = (each for each in found if each["kind"] == "RayCluster")
    return volume, cluster["spec"]


def containers_of(spec):
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_all_pods_have_one_image_and_the_ray_that_was_tried(cluster):
    _, spec = cluster
    assert spec["rayVersion"] == ray.__version__
    assert len({container["image"] for container in containers_of(spec)}) == 1
    assert f"rayproject/ray:{ray.__version__}-py3" in (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()


def test_a_token_is_asked_for(cluster):
    assert cluster[1]["authOptions"] == {"mode": "token"}


def test_run_folders_lie_on_the_volume(cluster):
    volume, spec = cluster
    pod = spec["headGroupSpec"]["template"]["spec"]
    (head,) = pod["containers"]
    (home,) = (each["value"] for each in head["env"] if each["name"] == HOME)
    (mounted,) = (each["name"] for each in head["volumeMounts"] if each["mountPath"] == home)
    (claim,) = (each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if each["name"] == mounted)
    assert claim == volume["metadata"]["name"]
    assert 8265 in [port["containerPort"] for port in head["ports"]]
