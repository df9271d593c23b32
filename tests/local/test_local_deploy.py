"""Functions from folders, and their settings."""

from __future__ import annotations

import json

import pytest
from awslambda_local import LocalAWS, LocalAWSError
from awslambda_local.deploy import DeployError, find_functions

HANDLER = "def lambda_handler(event, context): return 1\n"


@pytest.fixture
def folder(tmp_path):
    def write(files):
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(content)
        return tmp_path

    return write


def test_all_functions_of_the_folder_are_listed_with_their_settings(functions):
    listed = {function["FunctionName"]: function for function in functions.list_functions()["Functions"]}
    assert {"echo", "packaged", "environment", "slow"} <= listed.keys()
    assert listed["slow"]["Timeout"] == 1
    assert listed["echo"]["Timeout"] == 3
    assert listed["environment"]["MemorySize"] == 256
    assert functions.get_function_concurrency(FunctionName="single")["ReservedConcurrentExecutions"] == 1
    assert functions.get_alias(FunctionName="versioned", Name="prod")["FunctionVersion"] == "1"


def test_a_subfolder_is_one_function_with_all_its_modules(invoke):
    assert invoke("packaged", {"name": "bob"})["Payload"] == "Hello bob"


def test_the_handler_is_lambda_handler_else_handler_whichever_file_it_is_in(folder):
    found = find_functions(
        folder(
            {
                "one.py": HANDLER + "handler = lambda_handler\n",
                "two-b.py": "def handler(event, context): return 1\n",
                "three/lambda_function.py": HANDLER,
                "four/four.py": "from inside.code import lambda_handler\n",
                "four/inside/code.py": HANDLER,
                "notes.txt": "",
                "not_a_function/readme.txt": "",
            }
        )
    )
    assert {source.name: source.handler for source in found} == {
        "four": "four.lambda_handler",
        "one": "one.lambda_handler",
        "three": "lambda_function.lambda_handler",
        "two-b": "two-b.handler",
    }
    assert set(found[0].files) == {"four.py", "inside/code.py"}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"f.py": HANDLER, "functions.toml": "[f]\ntimeuot = 1"}, r"\[f\] has no key 'timeuot'; there are timeout, "),
        ({"f.py": HANDLER, "functions.toml": "[f]\ntimeout = '1'"}, r"\[f\] timeout must be of type int, not '1'"),
        ({"f.py": HANDLER, "functions.toml": "[f]\npublish = 1"}, r"\[f\] publish must be of type bool"),
        ({"f.py": HANDLER, "functions.toml": "[g]\ntimeout = 1"}, r"there is no function 'g' in .*; there are f"),
        ({"f.py": HANDLER, "functions.toml": "timeout = 1"}, r"timeout must be a table: \[timeout\]"),
        ({"f.py": HANDLER, "functions.toml": "[f"}, r"functions.toml: "),
        ({"f.py": HANDLER, "functions.toml": "[f]\nenvironment = {A = 1}"}, r"\[f\] environment: A must be a text"),
        ({"f.py": "x = 1\n"}, r"f: neither lambda_handler nor handler is defined"),
        ({"a b.py": HANDLER}, r"'a b' cannot be a function's name"),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_the_reason(folder, files, complaint):
    with pytest.raises(DeployError, match=complaint):
        find_functions(folder(files))


def test_a_module_that_does_not_parse_fails_when_it_is_called(folder):
    with LocalAWS(deploy=[folder({"torn.py": "def lambda_handler(:\n"})]) as aws:
        response = aws.client("lambda").invoke(FunctionName="torn")
        assert json.loads(response["Payload"].read())["errorType"] == "Runtime.UserCodeSyntaxError"


def test_two_functions_of_one_name_are_refused(folder, tmp_path):
    first = folder({"a/f.py": HANDLER, "b/f.py": HANDLER})
    with pytest.raises(LocalAWSError, match="two functions 'f'"):
        LocalAWS(deploy=[first / "a", first / "b"]).start()


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(LocalAWSError, match="no such folder"):
        LocalAWS(deploy=[tmp_path / "nowhere"]).start()
