"""The overlays of deploy/k8s render to manifests that fit Kubernetes' schemas."""

import shutil
import subprocess

import pytest

from tests.support.repository import ROOT

VALIDATE = ROOT / ".venv-kubernetes" / "bin" / "kubernetes-validate"


def rendered(overlay):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(ROOT / "deploy" / "k8s" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("overlay", "own"), [("cpu", "forebay:cpu"), ("gpu", "nvidia.com/gpu: 1")])
def test_an_overlay_has_every_part(overlay, own):
    text = rendered(overlay)
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"):
        assert f"kind: {kind}\n" in text
    for line in (own, "clusterIP: None", "grpc:", "name: forebay_execute_busy", "terminationGracePeriodSeconds: 45"):
        assert line in text


def test_a_daemon_set_has_one_pod_on_each_node_with_a_gpu_and_no_autoscaler():
    text = rendered("daemonset")
    for kind in ("DaemonSet", "Service", "PodDisruptionBudget", "NetworkPolicy"):
        assert f"kind: {kind}\n" in text
    for word in ("kind: Deployment", "Autoscaler", "topologySpreadConstraints", "replicas:"):
        assert word not in text
    for line in ("nvidia.com/gpu: 1", 'nvidia.com/gpu.present: "true"', "grpc:", "maxUnavailable: 1"):
        assert line in text


@pytest.mark.skipif(not VALIDATE.exists(), reason="make manifests makes .venv-kubernetes")
@pytest.mark.parametrize("overlay", ["cpu", "gpu", "daemonset"])
def test_an_overlay_fits_the_schemas_and_a_mistake_does_not(overlay, tmp_path):
    path = tmp_path / "manifests.yaml"
    wrong = rendered(overlay).replace("terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: many")
    for text, code in [(rendered(overlay), 0), (wrong, 1)]:
        path.write_text(text)
        ended = subprocess.run([VALIDATE, "--quiet", "--strict", path], check=False, capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr


def test_the_recording_rule_of_the_autoscaler_is_there():
    page, rules = ROOT / "docs" / "scaling.md", ROOT / "deploy" / "prometheus" / "alerts.yml"
    assert "record: forebay:execute_busy:ratio_rate1m" in rules.read_text()
    assert "forebay:execute_busy:ratio_rate1m{" in page.read_text()
