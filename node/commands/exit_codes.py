"""Exit codes of the commands, as `bzzz --help` and docs/operations.md list them.

The code of every failure that is not here is 1, or 2 for wrong use.
"""

FAILED = 1
WRONG_USE = 2
UNREACHABLE = 3
NOT_REPLICATED = 4
OUTPUT_FAILED = 5
INTERRUPTED = 130
