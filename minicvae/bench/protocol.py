"""How a contestant is spoken to: a line "TASK N" comes in, the seconds that N rounds of the task took go out.

The first line that goes out is "ready", written when everything is loaded, compiled and warm.
"""

import sys
from collections.abc import Callable, Mapping

__all__ = ["serve"]


def serve(tasks: Mapping[str, Callable[[int], float]]) -> None:
    """Answer lines until the input ends. tasks: name -> a function of N that returns seconds."""
    print("ready", flush=True)
    for line in sys.stdin:
        name, n = line.split()
        print(tasks[name](int(n)), flush=True)
