"""The shipped bytecode is what the source compiles to."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_build_reproduces_from_the_source(tmp_path: Path) -> None:
    """From another working directory and process: nothing of either may be in the result."""
    command = [sys.executable, str(ROOT / "scripts" / "build_contract.py"), "--check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
