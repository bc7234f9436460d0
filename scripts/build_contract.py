"""Compile the contract and write its build, or check that the shipped build is what the source compiles to.

    python scripts/build_contract.py            # rewrite ledger/contract/round_ledger.json
    python scripts/build_contract.py --check    # exit 1 if it differs

Vyper is needed here only: the package ships the result.
"""

import json
import sys
from pathlib import Path
from typing import Any

from Crypto.Hash import keccak
from vyper import __version__ as vyper_version
from vyper.compiler import compile_code

FOLDER = Path(__file__).resolve().parent.parent / "ledger" / "contract"
SOURCE = FOLDER / "RoundLedger.vy"
BUILD = FOLDER / "round_ledger.json"
OUTPUTS = ["abi", "bytecode", "bytecode_runtime", "method_identifiers"]


def build() -> str:
    """The build file's text, a function of the source and the compiler's version alone."""
    compiled: dict[str, Any] = compile_code(SOURCE.read_text(), output_formats=OUTPUTS)
    runtime: str = compiled["bytecode_runtime"]
    content = {
        "contract": "RoundLedger",
        "compiler": f"vyper {vyper_version}",
        "evm_version": "cancun",
        "code_hash": "0x" + keccak.new(digest_bits=256, data=bytes.fromhex(runtime[2:])).hexdigest(),
        "methods": {
            name: f"0x{int(selector, 16):08x}" for name, selector in compiled["method_identifiers"].items()
        },
        "abi": compiled["abi"],
        "creation_code": compiled["bytecode"],
    }
    return json.dumps(content, indent=2) + "\n"


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare; the exit status."""
    text = build()
    if arguments != ["--check"]:
        BUILD.write_text(text)
        return 0
    if BUILD.read_text() == text:
        return 0
    print(
        f"{BUILD.name} is not what {SOURCE.name} compiles to; run scripts/build_contract.py", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
