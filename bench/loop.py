"""Time a command many times inside a namespace made by the caller: `python -m bench.loop TIMES COMMAND...`."""

from __future__ import annotations

import sys

from bench.measure import run, seconds

if __name__ == "__main__":
    print(seconds(lambda: run(sys.argv[2:]), int(sys.argv[1]), warm=2))
