"""How busy this machine is: what may be late, and by how much."""

import os


def machine_load() -> float:
    """How many processes there were for each processor in the last minute, 1.0 at least: with more of them each waits
    for the others at every step, and no program can promise a time."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
