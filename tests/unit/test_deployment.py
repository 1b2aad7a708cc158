"""What is shipped to run elsewhere is pinned, private by default, healthy-checked, and documents every setting."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tollmeter.cli.root import COMMANDS
from tollmeter.dashboards.grafana.alerts import RULES
from tollmeter.dashboards.grafana.generate import BOARDS, HERE
from tollmeter.dashboards.grafana.provision import BOARDS_AT
from tollmeter.server.settings import ServerSettings
from tollmeter.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = ("price", "ledger", "watch")
OURS = ("setup", *WORKERS, "notify", "serve")
SECRETS = {"CLICKHOUSE_READER_PASSWORD", "CLICKHOUSE_GRAFANA_PASSWORD", "GRAFANA_ADMIN_PASSWORD"}
KEYS = {"API_KEY", "INGEST_KEY", "READ_KEY"}
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
LINE = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def documented() -> dict[str, str]:
    return dict(LINE.findall((ROOT / ".env.example").read_text(encoding="utf-8")))


def test_env_example_documents_every_setting_with_its_default() -> None:
    shown = {name.removeprefix(PREFIX).lower(): value for name, value in documented().items() if PREFIX in name}
    assert set(shown) == set(Settings.model_fields)
    text = {f"{PREFIX}{name}".upper(): value for name, value in shown.items()}
    assert Settings.from_environment(text) == Settings(), "a default in .env.example is not the default of the code"


def test_env_example_documents_every_setting_of_the_server_with_its_default() -> None:
    shown = {name: value for name, value in documented().items() if name.lower() in ServerSettings.model_fields}
    assert {name.lower() for name in shown} == set(ServerSettings.model_fields)
    assert ServerSettings.from_environment(shown) == ServerSettings()


def test_env_example_documents_every_variable_of_compose() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert used <= set(documented())


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_pinned_and_private(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert re.match(r"^\d+\.\d+", tag), f"{service['image']} is not pinned"
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), f"{port} would be open to the network"
    assert not service.get("privileged")
    assert service["logging"]["options"]["max-size"], "logs without a bound fill the disk"
    for variable, value in service["environment"].items():
        if "PASSWORD" in variable and value != "":
            assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value), f"{variable} must come from .env and be required"


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "setup"])
def test_long_running_service_restarts_and_is_checked(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_order_of_start() -> None:
    assert SERVICES["setup"]["depends_on"] == {
        "kafka": {"condition": "service_healthy"},
        "clickhouse": {"condition": "service_healthy"},
    }
    assert SERVICES["setup"]["command"] == ["setup"]
    assert SERVICES["notify"]["command"][0] == "notify"
    for stage in (*WORKERS, "notify"):
        assert SERVICES[stage]["command"][:2] in (["worker", stage], [stage, "--routes"])
        assert SERVICES[stage]["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}


def test_data_outlives_the_containers() -> None:
    kept = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert set(COMPOSE["volumes"]) <= kept
    for volume in (entry for service in SERVICES.values() for entry in service.get("volumes", ())):
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).exists(), f"{source} is not in the tree"


def test_workers_get_settings_that_exist() -> None:
    for stage in ("setup", *WORKERS):
        environment = {
            name: re.sub(r"\$\{.*\}", "secret", str(value)) for name, value in SERVICES[stage]["environment"].items()
        }
        settings = Settings.from_environment(environment)
        assert settings.clickhouse_user == "writer"


def test_kafka_versions_agree() -> None:
    assert SERVICES["kafka"]["image"] == "apache/kafka:4.1.1"
    pom = (ROOT / "src/tollmeter/embedded/pom.xml").read_text(encoding="utf-8")
    assert "4.1.1" in pom, "compose and `tollmeter up` should run the same broker"


def test_clickhouse_is_new_enough() -> None:
    major, minor = SERVICES["clickhouse"]["image"].rpartition(":")[2].split(".")[:2]
    assert (int(major), int(minor)) >= (26, 2)


def test_clickhouse_users() -> None:
    tree = ElementTree.parse(ROOT / "docker/clickhouse/users.d/tollmeter.xml").getroot()
    users = tree.find("users")
    assert users is not None
    assert users.find("default[@remove='remove']") is not None, "the user without a password must go"
    for name in ("writer", "reader", "grafana"):
        password = users.find(f"{name}/password")
        assert password is not None
        assert password.get("from_env") in SERVICES["clickhouse"]["environment"]
        assert not password.text
    assert users.findtext("reader/profile") == "reader"
    assert tree.findtext("profiles/reader/readonly") == "1"
    reader = [grant.text or "" for grant in users.findall("reader/grants/query")]
    assert reader
    for grant in reader:
        assert re.fullmatch(r"GRANT (SHOW|SELECT)(, (SHOW|SELECT))* ON [a-z]+\.\*", grant), grant
    grafana = {grant.text for grant in users.findall("grafana/grants/query")}
    texts = [panel.sql for board in BOARDS for panel in board.panels] + [rule.sql for rule in RULES]
    views = {name for text in texts for name in re.findall(r"(?:FROM|JOIN) (\w+)", text)}
    assert grafana == {f"GRANT SELECT ON tollmeter.{view}" for view in views}
    assert users.findtext("grafana/profile") == "grafana"
    assert tree.findtext("profiles/grafana/readonly") == "1"
    assert tree.findtext("profiles/grafana/max_execution_time")
    assert tree.findtext("profiles/writer/default_normal_view_sql_security") == "DEFINER", "views read for `grafana`"
    writer = " ".join(grant.text or "" for grant in users.findall("writer/grants/query"))
    assert "*.*" not in writer
    assert "SOURCES" not in writer


def test_dockerfile_installs_hashed_wheels_and_is_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes --no-deps --only-binary :all: -r requirements-worker.lock" in text
    assert re.search(r"^USER 10001", text, re.MULTILINE)
    assert not re.search(r"\b(gcc|build-essential|apt-get|curl)\b", text)
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", base) for base in bases)
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    for names in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in names.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in allowed, f"{name} is copied but .dockerignore hides it"


def test_one_image_is_built_once() -> None:
    assert [name for name, one in SERVICES.items() if "build" in one] == ["setup"]
    assert {SERVICES[name]["image"] for name in OURS} == {"tollmeter:0.1.0"}
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for label in ("title", "version", "licenses", "description"):
        assert f"org.opencontainers.image.{label}=" in text


@pytest.mark.parametrize("name", OURS)
def test_secrets_of_others_reach_no_worker(name: str) -> None:
    """`.env` is read whole; what stands in `environment` wins."""
    given = dict.fromkeys(documented(), "secret") | SERVICES[name]["environment"]
    held = {variable for variable in SECRETS | KEYS if given.get(variable, "") != ""}
    assert held == (KEYS if name == "serve" else set())


def test_grafana_finds_what_is_generated() -> None:
    grafana = SERVICES["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounted["./dashboards/grafana/boards"] == BOARDS_AT
    assert mounted["./dashboards/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "dashboards/grafana/boards" / Path(home).name).is_file()
    (source,) = yaml.safe_load((HERE / "provisioning/datasources/tollmeter.yaml").read_text())["datasources"]
    used = re.findall(r"\$([A-Z_]+)", json.dumps(source))
    assert set(used) <= set(grafana["environment"])
    assert source["type"] in grafana["environment"]["GF_PLUGINS_PREINSTALL_SYNC"]


MANIFESTS = [
    pytest.param(document, id=f"{file.name}-{document['kind']}-{document['metadata']['name']}")
    for file in sorted((ROOT / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("document", MANIFESTS)
@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_manifest_is_what_kubernetes_takes(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("document", MANIFESTS)
def test_pods_are_confined_and_probed(document: dict[str, Any]) -> None:
    """Not root, nothing writable but /tmp and a spool, secrets from a Secret alone; who lasts is probed."""
    template = document.get("spec", {}).get("template") if isinstance(document.get("spec"), dict) else None
    if template is None:
        return
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    for one in pod["containers"]:
        assert one["image"] == "tollmeter:0.1.0"
        assert one["securityContext"]["readOnlyRootFilesystem"]
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["resources"]["limits"]["memory"]
        for variable in one.get("env", ()):
            if "PASSWORD" in variable["name"] or "KEY" in variable["name"] or "PEPPER" in variable["name"]:
                assert set(variable["valueFrom"]) == {"secretKeyRef"}
        if document["kind"] != "Job":
            assert one["readinessProbe"]
            paths = {one[probe]["httpGet"]["path"] for probe in PROBES if "httpGet" in one.get(probe, {})}
            assert paths <= {"/livez", "/readyz", "/startupz"}


def test_replicas_of_the_server_have_one_secret() -> None:
    """Without it each process signs the cookies of its pages in its own way, and no key of the server is known."""
    documents = yaml.safe_load_all((ROOT / "kubernetes/50-server.yaml").read_text(encoding="utf-8"))
    (pods,) = [one["spec"] for one in documents if one["kind"] == "StatefulSet"]
    (container,) = pods["template"]["spec"]["containers"]
    given = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one}
    assert pods["replicas"] > 1
    assert not given["TOLLMETER_SECRET"].get("optional")
    made = (ROOT / "kubernetes/00-namespace.yaml").read_text(encoding="utf-8")
    assert [one["key"] for one in given.values() if f"--from-literal={one['key']}=" not in made] == []


def test_settings_of_the_manifests_exist() -> None:
    (settings, _) = yaml.safe_load_all((ROOT / "kubernetes/10-settings.yaml").read_text(encoding="utf-8"))
    given = settings["data"]
    assert not [name for name in given if "PASSWORD" in name or name.endswith("_KEY")]
    assert Settings.from_environment(given).health_port == 9470
    assert set(given) <= set(documented())


@pytest.mark.parametrize("unit", sorted((ROOT / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_units_are_confined_and_start_commands_that_exist(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=/opt/tollmeter/bin/tollmeter (\w+)", text, re.MULTILINE)
    assert command in COMMANDS
    for line in ("Restart=always", "DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"):
        assert line in text.splitlines()
    if analyze := shutil.which("systemd-analyze"):
        done = subprocess.run([analyze, "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True)
        assert "Unknown" not in done.stderr, done.stderr


def compose_plugin() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode == 0


@pytest.mark.docker
@pytest.mark.skipif(not compose_plugin(), reason="no Docker: the compose plugin is not installed")
def test_compose_accepts_the_file() -> None:
    required = ("TOLLMETER_CLICKHOUSE_PASSWORD", *SECRETS, "API_KEY", "INGEST_KEY")
    environment = dict.fromkeys(required, "x") | {"PATH": "/usr/bin:/bin"}
    subprocess.run(
        ["docker", "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        check=True,
        env=environment,
        capture_output=True,
    )


def test_routes_files_that_are_shipped_can_be_read() -> None:
    """The one of compose as it is; the example needs the secrets that it names, and nothing else."""
    from tollmeter.streams.notify import routes
    from tollmeter.streams.notify.channels import build

    (mounted,) = SERVICES["notify"]["volumes"]
    assert build(routes.read(ROOT / mounted.partition(":")[0]), {}).keys() == {"log"}
    secrets = {"OPS_MAIL_PASSWORD": "m", "HOOK_KEY": "h", "CHAT_URL": "slack://TokenA123/TokenB123/TokenC123/#ops"}
    assert build(routes.read(ROOT / "examples/routes.yaml"), secrets).keys() == {"log", "ops-mail", "hook", "chat"}
