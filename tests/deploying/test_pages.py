"""The pages of docs/deploying print the files of examples/deploy, and those hold together."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import antiphon.cli
from antiphon.server import ServerConfig
from tests.commands import ROOT

from .proxies import FILES

PAGES = sorted((ROOT / "docs" / "deploying").glob("*.md"))
PRINTED = [
    path for path in sorted(FILES.iterdir()) if path.is_file() and path.name not in ("README.md", ".dockerignore")
]


@pytest.mark.parametrize("file", PRINTED, ids=lambda path: path.name)
def test_a_page_prints_the_file_as_it_is(file: Path) -> None:
    blocks = [block for page in PAGES for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.M | re.S)]
    assert file.read_text() in blocks, f"no page of docs/deploying prints {file.name} as it stands"


def test_every_page_is_in_the_list() -> None:
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs" / "deploying" / "index.md").read_text()))
    assert listed == {page.name for page in PAGES} - {"index.md"}


# The container


def instructions() -> list[tuple[str, str]]:
    text = (FILES / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_the_container_runs_as_nobody_and_gets_its_signals_itself() -> None:
    last = dict(instructions())
    user, _, group = last["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    command = json.loads(last["ENTRYPOINT"])
    assert command[:3] == ["antiphon", "run", "main:app"]
    healthy = last["HEALTHCHECK"].partition("CMD ")[2]
    assert json.loads(healthy)[0] == "python"


def test_what_starts_in_the_container_and_the_service_is_understood(tmp_path: Path) -> None:
    starts = [json.loads(dict(instructions())["ENTRYPOINT"])]
    unit = (FILES / "chat.service").read_text()
    starts += [shlex.split(line) for line in re.findall(r"^ExecStart=(.+)", unit, re.M)]
    assert len(starts) == 2
    for command in starts:
        with antiphon.cli.main.make_context("antiphon", command[1:2]) as context:
            run = antiphon.cli.main.get_command(context, "run")
        assert run is not None
        with run.make_context("run", command[2:]):
            pass


# Kubernetes


def manifests() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())}


def test_a_pod_has_time_for_its_stop_before_it_is_killed() -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [_, seconds] = container["lifecycle"]["preStop"]["exec"]["command"]
    bound = ServerConfig().stop_window + ServerConfig().stop_grace
    with antiphon.cli.main.make_context("antiphon", ["run"]) as context:
        run = antiphon.cli.main.get_command(context, "run")
    assert run is not None
    [graceful] = [option.default for option in run.params if option.name == "timeout_graceful_shutdown"]
    assert isinstance(graceful, int)
    assert pod["terminationGracePeriodSeconds"] > int(seconds) + max(bound, graceful)


def test_the_probes_ask_what_the_app_serves() -> None:
    [container] = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    asked = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {"startupProbe": "/healthz", "readinessProbe": "/healthz", "livenessProbe": "/livez"}
    served = re.findall(r'add_route\("([^"]+)"', (FILES / "main.py").read_text())
    assert set(asked.values()) == set(served)
    for variable in container["env"]:
        name = variable["name"]
        assert name == "HUB_URL" or name.removeprefix("ANTIPHON_RUN_").lower() in ("forwarded_allow_ips", "metrics")


def test_the_autoscaler_counts_by_a_number_that_the_pods_show() -> None:
    parts = manifests()
    [container] = parts["Deployment"]["spec"]["template"]["spec"]["containers"]
    asked = [
        one["pods"]["metric"]["name"] for one in parts["HorizontalPodAutoscaler"]["spec"]["metrics"] if "pods" in one
    ]
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert asked == ["antiphon_connections_open"]
    assert variables["ANTIPHON_RUN_METRICS"] == "1"


def test_one_pod_belongs_to_all_parts() -> None:
    parts = manifests()
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert parts["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["Service"]["spec"]["selector"] == labels
    assert parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert parts["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == parts["Deployment"]["metadata"]["name"]


def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint has no wheel for this machine")
    ran = subprocess.run([hadolint, str(FILES / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")
