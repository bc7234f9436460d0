"""Keys that everybody has, and chains that anybody can rewrite: for trying things out only.

Development nodes fund the same accounts everywhere, from mnemonics that stand in their manuals. On a chain that matters
such a gas key is emptied by others, and with such an audit key anybody attests in its member's name.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import FolkmootError

DEVELOPMENT_CHAINS = frozenset(
    {
        1_337,  # geth --dev, ganache
        5_777,  # ganache's window
        31_337,  # anvil, hardhat
        131_277_322_940_537,  # eth-tester
        int.from_bytes(b"folk", "big"),  # folkmoot ledger dev, testnets
    }
)

WELL_KNOWN = frozenset(
    {
        # "test test test test test test test test test test test junk" (anvil, hardhat), m/44'/60'/0'/0/0 to 9
        "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266",
        "0x70997970c51812dc3a010c7d01b50e0d17dc79c8",
        "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc",
        "0x90f79bf6eb2c4f870365e785982e1f101e93b906",
        "0x15d34aaf54267db7d7c367839aaf71a00a2c6a65",
        "0x9965507d1a55bcc2695c58ba16fb37d819b0a4dc",
        "0x976ea74026e726554db657fa54763abd0c3a0aa9",
        "0x14dc79964da2c08b23698b3d3cc7ca32193d9955",
        "0x23618e81e3f5cdf7f54c3d65f7fbc0abf5b21e8f",
        "0xa0ee7a142d267c1f36714e4a8f75612f20a79720",
        # "myth like bonus scare over problem client lizard pioneer submit female collect" (ganache -d), the same path
        "0x90f8bf6a479f320ead074411a4b0e7944ea8c9c1",
        "0xffcf8fdee72ac11b5c542428b35eef5769c409f0",
        "0x22d491bde2303f2f43325b2108d26f1eaba1e32b",
        "0xe11ba2b4d45eaed5996cd0823791e0c93114882d",
        "0xd03ea8624c8c5987235048901fb614fdca89b117",
        "0x95ced938f7991cd0dfcb48f0a06a40fa1af46ebc",
        "0x3e5e9111ae8eb78fe1cc3bb8915d5d461f3ef9a9",
        "0x28a8746e75304c0780e011bed21c72cd78cd535e",
        "0xaca94ef8bd5ffee41947b4585a84bda5a3d3da6e",
        "0x1df62f291b2e969fb0849d99d9ce41e2f137006e",
    }
)
"""Addresses of the first ten accounts of each, in lower case."""


class WellKnownKey(FolkmootError):
    """A key of the charter or of this node is one that everybody has."""

    exit_code = 2


class DevelopmentChain(FolkmootError):
    """A chain that anybody can rewrite, where a record is expected."""

    exit_code = 2


def check_chain(charter: Charter, endpoints: Iterable[str]) -> None:
    """Raise `DevelopmentChain` if the charter's chain is one for development and one of the RPC URLs is elsewhere.

    On this machine (or through a tunnel that ends here) somebody tries things out and knows it.
    """
    if charter.ledger.chain_id not in DEVELOPMENT_CHAINS:
        return
    for endpoint in endpoints:
        if not _is_here(urlsplit(endpoint).hostname or ""):
            raise DevelopmentChain(
                f"chain {charter.ledger.chain_id} is one for development, which whoever runs it can rewrite, but "
                f"{endpoint} is not on this machine: found the federation on a real chain, or to try things out reach "
                "it through a tunnel (ssh -L) as 127.0.0.1"
            )


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_secret_keys(charter: Charter, gas_key: str) -> None:
    """Raise `WellKnownKey` if a member's audit key, or this node's `gas_key` (its address), is a development node's.

    On a development chain they are what one expects.
    """
    if charter.ledger.chain_id in DEVELOPMENT_CHAINS:
        return
    addresses = {f"the audit key of {member.name}": member.audit_key for member in charter.members}
    addresses["this node's gas key"] = gas_key
    for whose, address in addresses.items():
        if address.lower() in WELL_KNOWN:
            raise WellKnownKey(
                f"{whose}, {address}, belongs to a development node: everybody has it, and chain "
                f"{charter.ledger.chain_id} is none for development; make new keys with 'folkmoot init'"
            )
