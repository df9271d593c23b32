"""What a process says of itself, on its standard error: lines for people or JSON for machines, and a progress bar.

Names, codes, counts and times only: never a payload, a key or a token, and no connection string.
"""

from __future__ import annotations

import datetime
import json
import time
from typing import TextIO

WIDTH = 30  # characters of the bar itself
REDRAW = 0.1  # seconds


class Log:
    """Writes one event a line."""

    def __init__(self, stream: TextIO, as_json: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json
        self._shows_progress = not as_json and stream.isatty()
        self._drawn = ""
        self._redrawn = 0.0

    def __call__(self, level: str, event: str, message: str, **fields: object) -> None:
        """`level` is info, warning or error; `event` one word for machines, `message` the words for people."""
        self._clear()
        now = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        if self._as_json:
            line = json.dumps({"time": now, "level": level, "event": event, "message": message, **fields}, default=str)
        else:
            shown = "".join(f" {name}={_shown(value)}" for name, value in fields.items() if value not in ("", None))
            line = f"{now} {level.upper():7} {' '.join(message.split())}{shown}"
        self._stream.write(line + "\n")
        self._stream.flush()

    def progress(self, done: int, total: int | None, seconds: float) -> None:
        """Draws a bar where the stream is a terminal; nothing elsewhere. `seconds` is how long it took to be `done`."""
        now = time.monotonic()
        if not self._shows_progress or now - self._redrawn < REDRAW:
            return
        self._redrawn = now
        self._clear()
        rate = f"{done / seconds:,.0f}/s" if seconds > 0 else ""
        if total:
            filled = min(WIDTH, WIDTH * done // total)
            bar = "#" * filled + "." * (WIDTH - filled)
            self._drawn = f"[{bar}] {done:,} of {max(total, done):,} {rate}"
        else:
            self._drawn = f"{done:,} {rate}"
        self._stream.write(self._drawn)
        self._stream.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r" + " " * len(self._drawn) + "\r")
            self._drawn = ""


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
