"""An implementation in JavaScript, written by docs/protocol.md, agrees with the golden vectors."""

import json
import subprocess
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "vectors"


def test_javascript_agrees_with_the_golden_vectors(packages: Path) -> None:
    command = ["node", "check_vectors.mjs", str(VECTORS)]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["differs"] == []
    assert found["checked"] > 300
