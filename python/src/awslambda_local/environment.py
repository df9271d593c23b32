"""The environment variables of a handler's process: those AWS sets, the function's own, and the way back to the
local AWS.

Nothing of this machine's environment gets in but the search path for programs.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

from __future__ import annotations

import os
import uuid
from datetime import datetime, timezone
from pathlib import Path

from awslambda_local.credentials import TemporaryCredentials
from awslambda_local.functions import FunctionSpec


def handler_environment(
    spec: FunctionSpec, credentials: TemporaryCredentials, endpoint_url: str, folder: Path
) -> dict[str, str]:
    """Defaults that a function may override, the function's own variables, and those that AWS reserves, in this order.

    `folder` is the process's own; its code and its temporary files are in there. The log stream is new each time.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "TMPDIR": str(folder / "tmp"),
        "AWS_ENDPOINT_URL": endpoint_url,
        **spec.environment,
        "_HANDLER": spec.handler,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
        "AWS_REGION": spec.region,
        "AWS_DEFAULT_REGION": spec.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{spec.runtime}",
        "AWS_LAMBDA_FUNCTION_NAME": spec.name,
        "AWS_LAMBDA_FUNCTION_VERSION": spec.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_size),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": spec.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": _log_stream(spec.version),
        "LAMBDA_TASK_ROOT": str(folder / "task"),
        "LAMBDA_RUNTIME_DIR": str(Path(__file__).parent),
    }


def _log_stream(version: str) -> str:
    return f"{datetime.now(timezone.utc):%Y/%m/%d}/[{version}]{uuid.uuid4().hex}"
