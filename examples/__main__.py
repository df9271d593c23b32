"""make example NAME=...: one example on a local AWS: its SQL as psql shows it, and what came of it.

An example is a folder: handlers (`on-new-user.py`) with their settings in `functions.toml`, SQL that is run in the
order of the files' names, a README, and where needed a package `local`, whose prepare(stage) makes what is in AWS
besides functions and is not there yet, and whose show(stage) prints what arrived there and says whether that was all.
A comment `-- It fails:` stands before each statement that is to fail.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

from examples.stage import EXAMPLES, Stage, end_with_terminal, stage


def main(name: str) -> int:
    """Shows an example; 0 if all that should arrive has."""
    known = sorted({path.parent.name for path in EXAMPLES.glob("*/*.sql")})
    if name not in known:
        print(f"make example NAME=...: there is no example {name!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    with stage([EXAMPLES / name]) as here:
        return 0 if play(here, name) else 1


def play(here: Stage, name: str) -> bool:
    """Shows an example where its functions are; whether all went as it should."""
    folder = EXAMPLES / name
    local = importlib.import_module(f"examples.{name}.local") if (folder / "local").is_dir() else None
    options = local.prepare(here) if local else []
    went = [here.psql("CREATE EXTENSION awslambda CASCADE;\n")]
    went += [here.psql(script.read_text(), *options) for script in sorted(folder.glob("*.sql"))]
    if not all(went):
        print("A statement has failed, see above: the rest is not to be waited for.", file=sys.stderr)
        return False
    if local is None or local.show(here):
        return True
    print("Not all that should has arrived. What functions raised, by their logs:", file=sys.stderr)
    for line in raised(here):
        print(f"   {line}", file=sys.stderr)
    return False


def raised(here: Stage) -> Iterator[str]:
    """The errors in the functions' logs, each by its first line."""
    logs = here.aws.client("logs")
    for group in logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]:
        for event in logs.filter_log_events(logGroupName=group["logGroupName"])["events"]:
            if event["message"].startswith("[ERROR]"):
                yield f"{group['logGroupName']}: {event['message'].splitlines()[0]}"


if __name__ == "__main__":
    end_with_terminal()
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
