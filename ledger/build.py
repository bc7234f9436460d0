"""The contract as it ships: what `scripts/build_contract.py` compiled from `contract/RoundLedger.vy`."""

from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec

from folkmoot.protocol.types import Digest


class Build(msgspec.Struct, frozen=True):
    """One compiled contract. `methods` maps signatures to selectors; bytes are 0x-hex as in the file."""

    contract: str
    compiler: str
    evm_version: str
    code_hash: str
    methods: dict[str, str]
    abi: list[dict[str, Any]]
    creation_code: str

    def selector(self, name: str) -> bytes:
        """The four bytes that call the method called `name`."""
        for signature, selector in self.methods.items():
            if signature.partition("(")[0] == name:
                return bytes.fromhex(selector[2:])
        raise KeyError(name)


@lru_cache(maxsize=1)
def contract_build() -> Build:
    """The shipped build of `RoundLedger`."""
    text = files("folkmoot.ledger").joinpath("contract", "round_ledger.json").read_bytes()
    return msgspec.json.decode(text, type=Build)


def expected_code_hash() -> Digest:
    """Keccak-256 of the run-time code of every deployment; a charter names it before the contract has an address.

    It is the same everywhere because the contract keeps what differs (charter, attesters, federation id) in storage.
    """
    return bytes.fromhex(contract_build().code_hash[2:])
