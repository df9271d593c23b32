"""Every block of every document is checked: SQL is run and prints what the document shows, shell commands exist, JSON
and the like parse, links lead somewhere."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from awslambda import errors, settings
from awslambda_local import LocalAWS
from awslambda_local.cluster import Cluster
from awslambda_local.deploy import ROLE, find_functions

from deploy import stack
from tests.docs.markdown import ROOT, Block, Document, documents, matches

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENTS = documents("README.md", "docs/*.md")
LINKING = documents("*.md", "docs/*.md", "examples/*/*.md")


def ini(code: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(code)
    return parser


PARSERS: dict[str, Callable[[str], object]] = {
    "ini": lambda code: ini(code).sections(),
    "json": json.loads,
    "python": lambda code: compile(code, "block", "exec"),
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
LANGUAGES = {"sql", "text", "sh", *PARSERS}

# psql prints where in the Python code an error was raised, too; documents leave that out, as SHOW_CONTEXT does.
SESSION = ["-X", "-P", "pager=off", "-v", "SHOW_CONTEXT=never"]

NOT_RUN = {
    "apt-get", "aws", "cd", "createdb", "curl", "dnf", "docker", "git", "install", "ldd", "pip", "psql",
    "systemctl", "yum",
}  # fmt: skip


def each(*languages: str) -> pytest.MarkDecorator:
    """Parametrizes a test with the blocks of some languages in all documents."""
    found = [(document, block) for document in DOCUMENTS for block in document.blocks if block.language in languages]
    return pytest.mark.parametrize(
        ("document", "block"), [pytest.param(d, b, id=f"{d.name}:{b.line}") for d, b in found]
    )


def of(documents: list[Document]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("document", [pytest.param(document, id=document.name) for document in documents])


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (" a \n---\n 1\n", "  a  \n-----\n   1 \n", True),
        ("CREATE ROLE\n 1\n", " 1\n", True),
        (" OK\n 1", " 1", False),
        ("at 12:00", "at 23:59:59.9", True),
        ("one ... three", "one two three", True),
        ("one ... three", "one\nthree", False),
        ("...\nlast", "first\nsecond\nlast", True),
        ("...\nlast", "first\nlast\nmore", False),
        ("ERROR:  no", "ERROR:  yes", False),
    ],
)
def test_an_output_matches_what_is_shown_or_does_not(expected: str, actual: str, same: bool) -> None:
    assert matches(expected, actual) is same


# SQL.


@pytest.fixture(scope="module")
def example_functions(aws: LocalAWS) -> None:
    """Deploys the functions of examples/ that the tests do not have by the same name."""
    client = aws.client("lambda")
    known = {function["FunctionName"] for function in client.list_functions()["Functions"]}
    for folder in sorted({path.parent for path in ROOT.glob("examples/*/*.py")} - {ROOT / "examples"}):
        for source in find_functions(folder):
            if source.name not in known:
                client.create_function(
                    FunctionName=source.name, Runtime=f"python3.{sys.version_info.minor}", Handler=source.handler,
                    Role=f"arn:aws:iam::{aws.account_id}:role/{ROLE}", Code={"ZipFile": source.archive},
                    Timeout=source.settings.timeout,
                )  # fmt: skip


@pytest.fixture(scope="module")
def example_streams(aws: LocalAWS) -> None:
    """The streams of the documents, and who clicked."""
    client = aws.client("kinesis")
    for name in ("MySensorReadings", "MyClicks", "MyAuditLog", "MyFirstStream"):
        client.create_stream(StreamName=name, ShardCount=1)
    for page in ("/home", "/cart"):
        client.put_record(StreamName="MyClicks", Data=json.dumps({"page": page}).encode(), PartitionKey="k")


@of([document for document in DOCUMENTS if any(block.language == "sql" for block in document.blocks)])
@pytest.mark.usefixtures("example_functions", "example_streams")
def test_the_sql_of_a_document_prints_what_it_shows(document: Document, cluster: Cluster, database: str) -> None:
    sql = [block for block in document.blocks if block.language == "sql"]
    if any("CREATE EXTENSION awslambda" in block.code for block in sql):
        cluster.psql("-c", "DROP EXTENSION awslambda", "-c", "DROP EXTENSION plpython3u", database=database)
    for block, output in zip(sql, run_in_one_session(cluster, database, sql), strict=True):
        expected = document.output_of(block)
        if expected is None:
            assert not re.search(r"^(ERROR|FATAL|invalid|unrecognized|\\)", output, re.MULTILINE), (
                f"{document.name}:{block.line} fails, and no output is documented:\n{output}"
            )
        else:
            assert matches(expected, output), (
                f"{document.name}:{block.line} documents\n\n{expected}\nbut prints\n\n{output}"
            )


def run_in_one_session(cluster: Cluster, database: str, blocks: list[Block]) -> list[str]:
    """What psql prints for each block, errors in their place, as one would see it at a terminal."""
    end = "end of block"
    script = "".join(f"{block.code}\n\\echo {end}\n" for block in blocks)
    done = subprocess.run(
        [str(cluster.bindir / "psql"), *SESSION, "-d", cluster.dsn(database)],
        input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120,
    )  # fmt: skip
    *outputs, rest = re.split(rf"^{end}$", done.stdout, flags=re.MULTILINE)
    assert len(outputs) == len(blocks) and not rest.strip(), f"psql did not get to the end:\n{done.stdout}"
    return outputs


@of(DOCUMENTS)
def test_a_block_of_output_comes_after_what_prints_it(document: Document) -> None:
    before = None
    for block in document.blocks:
        assert block.language != "text" or before in ("sql", "sh"), f"{document.name}:{block.line}"
        before = block.language


# Shell.


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a block, one a line, without what stands before the program: sudo, variables, the prompt."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and (words[0] in ("sudo", "env", "$", "-u", "postgres") or re.match(r"\w+=", words[0])):
            del words[0]
        if words:
            yield words


def is_script(block: Block) -> bool:
    """More than a list of commands: it has a test of its own."""
    return block.code.startswith("set -eu\n")


@each("sh")
def test_shell_parses(document: Document, block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.code, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@each("sh")
def test_every_command_is_one_that_exists(document: Document, block: Block, cluster: Cluster, aws: LocalAWS) -> None:
    for program, *arguments in () if is_script(block) else commands(block):
        if program == "make":
            known = ["make", "--dry-run", "--old-file=setup", f"PG_CONFIG={cluster.bindir / 'pg_config'}"]
            given = [word for word in arguments if not word.startswith("PG_CONFIG=")]
            subprocess.run([*known, *given], cwd=ROOT, check=True, capture_output=True)
        elif program == "awslambda":
            run_awslambda(arguments, aws, cluster)
        elif arguments[:2] == ["-m", "deploy.stack"]:
            asked = stack.parser().parse_args(arguments[2:])
            assert asked.command != "deploy" or (ROOT / asked.template).exists()
        elif program.endswith("python3") or program.endswith("python"):
            assert arguments[:1] == ["-m"] or (ROOT / arguments[0]).exists(), arguments
            assert arguments[1:2] in (["venv"], ["pip"], ["awslambda_local"], ["pytest"], ["deploy.iam"], []), arguments
        else:
            assert program.rsplit("/", 1)[-1] in NOT_RUN, f"{program}: say in this test how it is checked"


@each("sh")
def test_a_command_prints_what_is_shown_of_it(
    document: Document, block: Block, aws: LocalAWS, cluster: Cluster
) -> None:
    expected = document.output_of(block)
    if expected is None or is_script(block):
        return
    output = ""
    for program, *arguments in commands(block):
        if program == "awslambda":
            output += run_awslambda(arguments, aws, cluster)
        elif [program, *arguments] == ["make", "demo"]:
            done = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
            output += done.stdout
        else:
            return  # it changes the machine, or takes too long
    assert matches(f"...\n{expected}\n...", output), (
        f"{document.name}:{block.line} shows\n\n{expected}\nbut this is\n\n{output}"
    )


def run_awslambda(arguments: list[str], aws: LocalAWS, cluster: Cluster) -> str:
    """Runs the program on the "instance", with a database; it must not refuse its command line, nor find a fault."""
    database = {"PGHOST": str(cluster.folder), "PGUSER": "postgres", "PGDATABASE": "with_extension"}
    environment = {"PATH": os.environ["PATH"], **aws.environment, **database}
    done = subprocess.run(
        ["/usr/local/bin/awslambda", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Everything else.


@of(DOCUMENTS)
def test_no_block_is_left_unchecked(document: Document) -> None:
    for block in document.blocks:
        assert block.language in LANGUAGES, f"{document.name}:{block.line} is {block.language or 'of no language'}"
    assert document.prose.count("```") == 0 and "~~~" not in document.prose


@each(*PARSERS)
def test_data_and_python_parse(document: Document, block: Block) -> None:
    assert PARSERS[block.language](block.code), "it is empty"


@each("json")
def test_a_policy_of_iam_has_all_that_iam_asks_for(document: Document, block: Block) -> None:
    policy = json.loads(block.code)
    assert "Statement" not in policy or policy["Version"] == "2012-10-17"
    for statement in policy.get("Statement", []):
        assert statement["Effect"] == "Allow" and statement["Action"]
        assert ("Resource" in statement) != ("Principal" in statement)


@of(LINKING)
def test_links_lead_somewhere(document: Document) -> None:
    for link in document.links:
        path, _, anchor = urllib.parse.unquote(link).partition("#")
        if re.match(r"\w+:", path):
            assert path.startswith("https://"), f"{document.name}: {link}"
            continue
        target = (document.path.parent / path).resolve() if path else document.path
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            assert anchor in Document(target).anchors, f"{document.name}: {link}"


@pytest.mark.parametrize("picture", [pytest.param(path, id=path.name) for path in sorted(ROOT.glob("docs/*.svg"))])
def test_a_picture_can_be_drawn_and_is_described(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()
    assert root.findtext("{http://www.w3.org/2000/svg}title") and root.findtext("{http://www.w3.org/2000/svg}desc")
    assert any(picture.name in document.links for document in DOCUMENTS)


# What the pages say of the code.


def cells(document: Path) -> list[list[str]]:
    """The rows of a document's tables."""
    lines = [line.strip() for line in document.read_text("utf-8").splitlines()]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]


def test_the_table_of_options_is_the_code_s() -> None:
    listed = {
        row[0].strip("`"): row
        for row in cells(ROOT / "docs/servers.md")
        if len(row) == 4 and row[2] in ("owner", "superuser")
    }
    assert sorted(listed) == sorted(settings.OPTIONS)
    for option, (_, default, who, _) in listed.items():
        assert who == ("superuser" if option in settings.SUPERUSER_ONLY else "owner"), option
        value = getattr(settings.Settings(), option, None)
        shown = f"{value:g}s" if isinstance(value, float) else str(value)
        assert default == (f"`{shown}`" if isinstance(value, (int, float)) else "none"), option


def test_the_table_of_errors_has_every_class_with_its_sqlstate() -> None:
    classes = {
        name: kind.sqlstate
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.LambdaError) and kind is not errors.LambdaError
    }
    listed: dict[str, str] = {}
    for row in cells(ROOT / "docs/errors.md"):
        if row[0].startswith("`") and len(row) == 5:
            listed |= {name.strip("` "): row[0].strip("`") for name in row[1].split(",")}
    assert listed == classes


def test_the_reference_is_what_the_catalog_says() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/reference.py"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs/reference.md").read_text("utf-8"), (
        "run: .venv/bin/python docs/reference.py > docs/reference.md"
    )


# The example of a continuous integration.


@pytest.fixture
def project(cluster: Cluster, readable_folder: Path) -> Path:
    """The files that docs/local-aws.md names in the first line of its blocks, in a folder with its virtual environment;
    the server's programs run as the server's user wherever the tests run as root."""
    folder = Path(tempfile.mkdtemp(dir=readable_folder))
    folder.chmod(0o777)
    (folder / "bin").mkdir()
    for block in Document(ROOT / "docs/local-aws.md").blocks:
        if named := re.match(r"(?:#|--) (\S+\.\w+)\n", block.code):
            file = folder / named[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.code)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    as_user = "setpriv --reuid postgres --regid postgres --clear-groups" if os.getuid() == 0 else ""
    for name in ("initdb", "pg_ctl"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {as_user} {cluster.bindir / name} "$@"\n')
        program.chmod(0o755)
    return folder


def test_the_script_for_continuous_integration_runs_as_it_stands(project: Path, cluster: Cluster) -> None:
    document = Document(ROOT / "docs/local-aws.md")
    [block] = [block for block in document.blocks if is_script(block)]
    script = block.code
    for port in ("4566", "4567"):
        script = script.replace(port, str(free_port()))
    path = f"{project / 'bin'}:{cluster.bindir}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(project), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT / "python/src")}
    done = subprocess.run(
        ["sh"], input=script, cwd=project, env=environment, text=True, check=False, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    expected = document.output_of(block)
    assert expected and matches(expected, done.stdout), done.stdout


def test_the_test_in_python_passes(project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python/src")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "test_temperature.py"],
        cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_functions_of_the_page_are_found_with_their_settings(project: Path) -> None:
    assert [source.name for source in find_functions(project / "functions")] == ["lambdaTest"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
