"""AWS Lambda for PostgreSQL: the Python side of the extension awslambda."""

from __future__ import annotations

import sys
from typing import Any

__version__ = "0.1.0"


def require(plpy: Any, folder: str) -> None:
    """Raises 55000 unless this session runs the package, and botocore, of the version whose SQL function is called.

    Every version's SQL calls this of whichever version the session has loaded: name and arguments never change.
    """
    for name in ("awslambda", "botocore"):
        module = sys.modules.get(name)
        if module is None or str(module.__file__).startswith(folder + "/"):
            continue
        from pathlib import Path

        found = Path(str(module.__file__)).parent.parent
        plpy.error(
            f"this session has loaded the Python package {name} from {found}, not from {folder}",
            hint="Reconnect: a new session loads the right one, if a function of awslambda is called first.",
            sqlstate="55000",
        )
