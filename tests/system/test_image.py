"""The Dockerfile, proven without Docker too: buildah builds it on a Debian that stands in for the official image, and
the PostgreSQL in that image calls a function. Where a Docker daemon answers, Docker does all of it as well."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from awslambda_local import LocalAWS
from awslambda_local.__main__ import parse
from awslambda_local.deploy import find_functions

from tests.docs.markdown import Document
from tests.system.buildah import PACKAGES, Buildah, CommandError, run, sources
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
IMAGE = "localhost/awslambda"
CALL = """SELECT awslambda_fn('lambdaTest', '{"name":"bob"}')"""
ANSWER = {"name": "bob", "Status": "OK"}

# Run in the image by the user postgres, with the healthcheck's command as arguments.
SESSION = r"""
folder=$(mktemp -d)
trap 'pg_ctl stop -s -m immediate -D "$folder/data"; rm -rf "$folder"' EXIT
set -e
initdb --no-sync -A trust -D "$folder/data" >/dev/null
if "$@"; then echo healthy; else echo unhealthy; fi
pg_ctl start -s -w -D "$folder/data" -l "$folder/log" \
  -o "-k $folder -c listen_addresses=127.0.0.1 -c fsync=off" || { cat "$folder/log" >&2; exit 1; }
if "$@"; then echo healthy; else echo unhealthy; fi
psql -X -q -A -t -v ON_ERROR_STOP=1 -c "CREATE EXTENSION awslambda CASCADE" -c "$CALL"
awslambda dispatch --once >&2
awslambda doctor >&2
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    """With the stand-in in its store. Installs what is missing if it may, else skips and says what that is."""
    missing = [package for package in PACKAGES if not shutil.which(package)]
    if os.geteuid() != 0:
        pytest.skip(f"an image without Docker needs root{' and ' + ' '.join(missing) if missing else ''}")
    if not shutil.which("apt-get"):
        pytest.skip(f"an image without Docker needs Debian's apt-get and {' '.join(PACKAGES)}")
    if missing or not sources():
        run("apt-get", "update", "-qq")
        quietly = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES, environment=quietly)
    try:
        made = Buildah()
    except CommandError as error:
        pytest.skip(f"an image without Docker needs a root that may mount: {error}")
    with contextlib.closing(made):
        made.make_stand_in()
        yield made


@pytest.fixture(scope="module")
def container(buildah: Buildah) -> str:
    """A container of the image that the Dockerfile makes."""
    buildah.build(ROOT, f"--tag={IMAGE}")
    return buildah.mounted_container(IMAGE)[0]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    run(Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile")


@pytest.mark.slow
def test_the_image_calls_a_function_and_knows_whether_it_is_healthy(
    buildah: Buildah, container: str, aws: LocalAWS
) -> None:
    config = json.loads(buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]
    kind, *healthcheck = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(free_port()), **aws.environment}
    said = buildah.run(container, "bash", "-c", SESSION, "bash", *healthcheck, user="postgres", CALL=CALL, **where)
    before, after, answer = said.splitlines()
    assert (before, after, json.loads(answer)) == ("unhealthy", "healthy", ANSWER)


@pytest.mark.slow
def test_nothing_that_only_the_build_needs_is_in_the_image(buildah: Buildah, container: str) -> None:
    assert buildah.run(container, "sh", "-c", "command -v pip pip3 make || true") == ""
    assert buildah.run(container, "find", "/", "-xdev", "-type", "d", "-name", "pip") == ""
    assert buildah.run(container, "find", "/var/lib/apt/lists", "/tmp", "-mindepth", "1") == ""


@pytest.mark.slow
def test_no_python_of_ours_is_compiled_anew_in_the_image(buildah: Buildah, container: str) -> None:
    command = "PYTHONPATH=$(echo /usr/local/lib/awslambda/*) python3 -v -c 'import awslambda.plpython, boto3' 2>&1"
    said = buildah.run(container, "sh", "-c", command, user="postgres")
    loaded = re.findall(r"^# code object from '(/usr/local/.*)'", said, re.MULTILINE)
    assert loaded
    assert [file for file in loaded if not file.endswith(".pyc")] == []


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_fails_the_build(buildah: Buildah, container: str, tmp_path: Path) -> None:
    for file in ("Dockerfile", ".dockerignore", "Makefile"):
        shutil.copy2(ROOT / file, tmp_path)
    for folder in ("extension", "python", "sql"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    with (tmp_path / "python/src/awslambda/plpython.py").open("a") as module:
        module.write("import no_such_module\n")
    with pytest.raises(CommandError, match="no_such_module"):
        buildah.build(tmp_path)


@pytest.fixture
def docker_client() -> Iterator[Any]:
    """Of this machine's daemon only: containers of another one cannot reach the local AWS."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    with socket.socket(socket.AF_UNIX) as probe:  # the SDK forgets to close its socket when nobody answers
        try:
            probe.connect(host.removeprefix("unix://"))
        except OSError as error:
            pytest.skip(f"no Docker daemon of this machine answers at {host}: {error.strerror}")
    docker = pytest.importorskip("docker")
    with contextlib.closing(docker.from_env()) as client:
        yield client


@pytest.mark.slow
def test_docker_builds_and_runs_the_image(docker_client: Any, aws: LocalAWS) -> None:
    tag = f"awslambda-test:{uuid.uuid4()}"
    variables = {"POSTGRES_PASSWORD": "test", "PGPORT": str(free_port()), **aws.environment}
    docker_client.images.build(path=str(ROOT), tag=tag, rm=True, forcerm=True)
    with contextlib.ExitStack() as made:
        made.callback(docker_client.images.remove, tag)
        container = docker_client.containers.run(tag, detach=True, network_mode="host", environment=variables)
        made.callback(container.remove, v=True, force=True)

        def is_healthy() -> bool:
            container.reload()
            assert container.status in ("created", "running"), container.logs().decode()
            return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

        wait_until(is_healthy, "the container's healthcheck to succeed", seconds=120)
        psql = ["psql", "-X", "-q", "-A", "-t", "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
        code, said = container.exec_run([*psql, "-c", "CREATE EXTENSION awslambda CASCADE", "-c", CALL])
        assert code == 0, said
        assert ANSWER in [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]


def test_the_compose_file_of_the_documents_fits_the_local_aws() -> None:
    [compose] = [block.code for block in Document(ROOT / "docs/docker.md").blocks if block.language == "yaml"]
    db, aws = (yaml.safe_load(compose)["services"][name] for name in ("db", "aws"))
    install, start = aws["command"][-1].split(" && exec python -m awslambda_local ")
    assert (ROOT / install.split(" -r ")[1]).exists()
    options, ready_file, _ = parse(start.split())
    assert [str(ready_file)] == aws["healthcheck"]["test"][-1:]
    assert options.host == "0.0.0.0"
    assert db["environment"]["AWS_ENDPOINT_URL"] == f"http://aws:{options.port}"
    assert db["environment"]["AWS_EC2_METADATA_SERVICE_ENDPOINT"] == f"http://aws:{options.imds_port}"
    assert "lambdaTest" in [source.name for folder in options.deploy for source in find_functions(ROOT / folder)]
