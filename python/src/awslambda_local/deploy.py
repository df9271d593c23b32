"""Functions from a folder: `NAME.py`, or a subfolder NAME, becomes the function NAME.

The handler is `lambda_handler`, else `handler`, of the file; in a subfolder, of `lambda_function.py`, else of
`NAME.py`. A file `functions.toml` beside them says what else is known of a function:

    [resize]
    timeout = 10                       # seconds; default 3, as on AWS
    memory_size = 512                  # MB
    handler = "resize.main"
    reserved_concurrency = 1
    publish = true                     # version 1
    aliases = {prod = "1"}
    maximum_retry_attempts = 0         # of asynchronous invocations; default 2
    on_failure = "arn:aws:sqs:us-east-1:123456789012:failed"
    environment = {TABLE = "pictures"}

Everything goes through the API of the local AWS, so that a deployed function is one like any other.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from awslambda_local.clients import local_client

ROLE = "lambda-role"
SETTINGS_FILE = "functions.toml"

_NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")
_HANDLERS = ("lambda_handler", "handler")


class DeployError(Exception):
    """A folder that cannot be deployed; the message says which file or key, and why."""


@dataclass(frozen=True)
class Settings:
    """The keys of one function in functions.toml."""

    timeout: int = 3
    memory_size: int = 128
    handler: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int = -1
    publish: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    maximum_retry_attempts: int = 2
    on_failure: str = ""
    on_success: str = ""

    @classmethod
    def parse(cls, name: str, table: object) -> Settings:
        """Raises DeployError for an unknown key and for a value of the wrong type."""
        if not isinstance(table, dict):
            raise DeployError(f"{SETTINGS_FILE}: {name} must be a table: [{name}]")
        defaults = {known.name: getattr(cls(), known.name) for known in fields(cls)}
        for key, value in table.items():
            if key not in defaults:
                raise DeployError(f"{SETTINGS_FILE}: [{name}] has no key {key!r}; there are {', '.join(defaults)}")
            if type(value) is not type(defaults[key]):
                wanted = type(defaults[key]).__name__
                raise DeployError(f"{SETTINGS_FILE}: [{name}] {key} must be of type {wanted}, not {value!r}")
            for inner in (inner for inner in value if not isinstance(value[inner], str)) if type(value) is dict else ():
                raise DeployError(f"{SETTINGS_FILE}: [{name}] {key}: {inner} must be a text, not {value[inner]!r}")
        return cls(**table)


@dataclass(frozen=True)
class Source:
    """A function found in a folder: its name, its files by their path in the zip, and its handler."""

    name: str
    files: Mapping[str, bytes]
    handler: str
    settings: Settings

    @property
    def archive(self) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in sorted(self.files.items()):
                archive.writestr(path, content)
        return buffer.getvalue()


def find_functions(folder: Path) -> list[Source]:
    """The functions in a folder, by name. Raises DeployError when one of them cannot be deployed."""
    if not folder.is_dir():
        raise DeployError(f"{folder}: no such folder")
    found = {name: files for name, files in map(_files, sorted(folder.iterdir())) if files}
    settings = _settings(folder / SETTINGS_FILE)
    for name in settings:
        if name not in found:
            known = ", ".join(found)
            raise DeployError(f"{SETTINGS_FILE}: there is no function {name!r} in {folder}; there are {known}")
    return [_source(name, files, settings.get(name, Settings())) for name, files in found.items()]


def deploy(folders: list[Path], endpoint_url: str, region: str) -> list[str]:
    """Create all functions of some folders; returns their names."""
    sources = [source for folder in folders for source in find_functions(folder)]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise DeployError(f"there are two functions {name!r} in {', '.join(map(str, folders))}")
    role_arn = _create_role(local_client("iam", endpoint_url, region))
    client = local_client("lambda", endpoint_url, region)
    for source in sources:
        _create(client, source, role_arn)
    return names


def _files(path: Path) -> tuple[str, dict[str, bytes]]:
    """The name and the files of the function at a path, if there is one."""
    if path.is_file() and path.suffix == ".py" and path.stem != "__init__":
        return path.stem, {path.name: path.read_bytes()}
    if path.is_dir() and any((path / entry).is_file() for entry in _entries(path.name)):
        inside = (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return path.name, {file.relative_to(path).as_posix(): file.read_bytes() for file in inside}
    return path.name, {}


def _entries(name: str) -> list[str]:
    return ["lambda_function.py", f"{name}.py"]


def _settings(path: Path) -> dict[str, Settings]:
    if not path.exists():
        return {}
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DeployError(f"{path}: {error}") from None
    return {name: Settings.parse(name, table) for name, table in tables.items()}


def _source(name: str, files: Mapping[str, bytes], settings: Settings) -> Source:
    if not _NAME.fullmatch(name):
        raise DeployError(f"{name!r} cannot be a function's name: letters, digits, - and _ only, at most 64")
    entry = next(entry for entry in _entries(name) if entry in files)
    return Source(name, files, settings.handler or f"{Path(entry).stem}.{_handler(name, files[entry])}", settings)


def _handler(name: str, code: bytes) -> str:
    """Which of the usual names the file defines; the first, if it does not parse: that error belongs to Invoke."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return _HANDLERS[0]
    defined = {target for node in tree.body for target in _defined(node)}
    for handler in _HANDLERS:
        if handler in defined:
            return handler
    raise DeployError(f"{name}: neither lambda_handler nor handler is defined; {SETTINGS_FILE} can name another")


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom | ast.Import):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _create_role(iam: Any) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    return str(iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"])


def _create(client: Any, source: Source, role_arn: str) -> None:
    settings = source.settings
    client.create_function(
        FunctionName=source.name,
        Runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
        Role=role_arn,
        Handler=source.handler,
        Code={"ZipFile": source.archive},
        Timeout=settings.timeout,
        MemorySize=settings.memory_size,
        Environment={"Variables": dict(settings.environment)},
        Publish=settings.publish,
    )
    if settings.reserved_concurrency >= 0:
        client.put_function_concurrency(
            FunctionName=source.name, ReservedConcurrentExecutions=settings.reserved_concurrency
        )
    for alias, version in settings.aliases.items():
        client.create_alias(FunctionName=source.name, Name=alias, FunctionVersion=version)
    destinations = {"OnFailure": settings.on_failure, "OnSuccess": settings.on_success}
    client.put_function_event_invoke_config(
        FunctionName=source.name,
        MaximumRetryAttempts=settings.maximum_retry_attempts,
        DestinationConfig={which: {"Destination": arn} for which, arn in destinations.items() if arn},
    )
