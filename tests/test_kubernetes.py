"""The profile for Kubernetes, as far as it goes without a cluster: what it plans, and what each pod would be given."""

import logging
from types import SimpleNamespace

import pytest
import yaml
from checkout import ROOT, TOY, snakemake

plugin = pytest.importorskip("snakemake_executor_plugin_kubernetes", reason="needs the extra `cluster`")
PROFILE = yaml.safe_load((ROOT / "profiles/kubernetes/config.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def executor():
    """The plugin's executor as the profile sets it up, with an interface that notes what would be sent to a cluster."""
    made = object.__new__(plugin.Executor)
    volumes = plugin.parse_persistent_volumes(PROFILE["kubernetes-persistent-volumes"])
    made.k8s_cpu_scalar, made.k8s_service_account_name, made.privileged = 0.95, None, False
    made.namespace, made.container_image = PROFILE["kubernetes-namespace"], PROFILE["container-image"]
    made.persistent_volumes, made.secret_envvars, made.run_namespace, made.sent = volumes, {}, "test", []
    made.workflow = SimpleNamespace(deployment_settings=SimpleNamespace(deployment_method=set()))
    made.format_job_exec = lambda job: "snakemake --target-jobs x"
    made.report_job_submission = lambda info: None
    made._kubernetes_retry = lambda call: call()
    made.batchapi = SimpleNamespace(create_namespaced_job=lambda namespace, body: made.sent.append((namespace, body)))
    plugin.Executor.logger = logging.getLogger("test")
    yield made
    del plugin.Executor.logger


def pod(executor, **resources):
    """The pod of a job with these resources besides the profile's."""
    text = {"gpu_manufacturer": PROFILE["default-resources"]["gpu_manufacturer"].strip("'")}
    resources = {"_cores": 2, "scale": PROFILE["default-resources"]["scale"], **text, **resources}
    executor.run_job(SimpleNamespace(resources=resources, jobid=1, attempt=1, is_containerized=False))
    ((namespace, body),) = executor.sent
    assert namespace == "default"
    return body.spec.template.spec


def test_a_pod_gets_its_gpu_as_a_limit_its_memory_the_image_and_the_volume(executor):
    spec = pod(executor, gpu=1, mem_mb=4000)
    (container,) = spec.containers
    assert container.image == "privimage:latest"
    assert container.resources.limits == {"cpu": "2000m", "memory": "4000M", "nvidia.com/gpu": "1"}
    assert container.resources.requests == {"cpu": "1900m", "memory": "4000M", "nvidia.com/gpu": "1"}
    assert {mount.name: mount.mount_path for mount in container.volume_mounts} == {
        "workdir": "/workdir", "privimage": "/data",
    }  # fmt: skip
    claims = [v.persistent_volume_claim.claim_name for v in spec.volumes if v.persistent_volume_claim]
    assert claims == ["privimage"] and spec.restart_policy == "Never"
    assert [toleration.key for toleration in spec.tolerations] == ["nvidia.com/gpu"]


def test_a_job_without_a_gpu_is_not_refused(executor):
    assert pod(executor, gpu=0, mem_mb=1000).containers[0].resources.limits["nvidia.com/gpu"] == "0"


def test_results_lie_on_the_volume_that_pods_mount():
    (volume,) = plugin.parse_persistent_volumes(PROFILE["kubernetes-persistent-volumes"])
    assert PROFILE["default-storage-prefix"] == str(volume.path)


def planned(project, tmp_path, state: str):
    """A dry-run by the profile, with the state in that folder."""
    (tmp_path / "state.yaml").write_text(f"state_dir: {state}\n")
    words = ("--dry-run", "--quiet", "rules", "--workflow-profile", "profiles/kubernetes")
    return snakemake(project, *words, *TOY, str(tmp_path / "state.yaml"))


@pytest.mark.slow
def test_snakemake_takes_every_key_and_plans(fresh, tmp_path):
    done = planned(fresh, tmp_path, "/data/state")
    assert done.returncode == 0 and "finetune" in done.stdout, done.stdout


def test_a_state_that_would_be_gone_with_each_pod_is_refused(fresh, tmp_path):
    done = planned(fresh, tmp_path, "state")
    assert done.returncode and "error: state_dir is 'state'; where results are copied to and" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_container_has_the_tested_versions_no_weights_and_no_root():
    text = (ROOT / "envs/Containerfile").read_text(encoding="utf-8")
    assert "--constraint constraints.txt '.[cluster]'" in text and "USER 1000\n" in text
    copied = {word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    assert copied == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "privimage"}
