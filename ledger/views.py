"""What one way of asking shows of the chain and of the contract on it, parsed strictly.

Raises what `Ask` raises, and `RemoteProtocolError` for an answer that makes no sense.
"""

from typing import NamedTuple

from folkmoot.ledger import codec
from folkmoot.ledger.answers import BlockAnswer, exactly, parse, to_bytes, to_hex, to_int
from folkmoot.ledger.build import contract_build, expected_code_hash
from folkmoot.ledger.errors import WrongLedger
from folkmoot.ledger.port import FinalBlock
from folkmoot.ledger.rpc import Ask, RpcError
from folkmoot.protocol.charter_tables import FINALITY_DEPTH
from folkmoot.protocol.typed_data import keccak256
from folkmoot.protocol.types import Digest, Round


class Position(NamedTuple):
    """What the contract says in one call; the fields are those of `LedgerHead`."""

    height: Round
    head: Digest
    config: Digest
    amendments: int
    governance: Digest


class ContractView:
    """Blocks, and the contract's state in them."""

    def __init__(self, ask: Ask, contract: bytes, depth: int = FINALITY_DEPTH) -> None:
        """`contract`: its address, 20 bytes. `depth`: what makes a block final where the chain does not say it."""
        self._ask = ask
        self._contract = contract
        self._depth = depth
        self._has_final_tag = False

    def block(self, tag: str) -> BlockAnswer:
        """A block by tag, or by number in hex."""
        return parse(self._ask("eth_getBlockByNumber", tag, False), BlockAnswer)

    def hash_of(self, number: int) -> Digest:
        """The hash of block `number`."""
        return to_bytes(self.block(hex(number)).hash, 32)

    def final(self, latest: BlockAnswer) -> FinalBlock:
        """The newest block that counts as final: the chain's word, or a depth where the chain has none.

        A chain that has said it once is held to it: an error is then an error, and not the other rule.
        """
        number = to_int(latest.number)
        try:
            found = self._ask("eth_getBlockByNumber", "finalized", False)
        except RpcError:
            if self._has_final_tag:
                raise
            found = None
        if found is None:
            deep = max(0, number - self._depth)
            return FinalBlock(deep, self.hash_of(deep))
        self._has_final_tag = True
        answer = parse(found, BlockAnswer)
        # The chain may have grown between the two questions.
        chosen = answer if to_int(answer.number) < number else latest
        return FinalBlock(to_int(chosen.number), to_bytes(chosen.hash, 32))

    def state(self, method: str, block: str = "latest") -> bytes:
        """What a view of the contract returns at `block` (a number in hex, or a tag)."""
        call = {"to": to_hex(self._contract), "data": to_hex(contract_build().selector(method))}
        return to_bytes(self._ask("eth_call", call, block))

    def position(self, block: str) -> Position:
        """Where the record stands as of `block`; nowhere if the contract was not there yet."""
        answer = self.state("position", block)
        if not answer:
            return Position(0, b"", b"", 0, b"")
        height, head, config, amendments, governance = codec.words(exactly(answer, 5 * codec.WORD))
        return Position(
            codec.decode_uint(height, 63), head, config, codec.decode_uint(amendments, 63), governance
        )

    def chain_id(self) -> int:
        """The chain's EIP-155 id."""
        return to_int(self._ask("eth_chainId"))

    def code_hash(self, where: str) -> Digest:
        """Keccak-256 of the code at the contract's address; raises `WrongLedger` unless it is this release's.

        `where` names the chain or the endpoint in the error. A transaction to an address without code "succeeds".
        """
        what = f"the code at {to_hex(self._contract)} {where}"
        code = to_bytes(self._ask("eth_getCode", to_hex(self._contract), "latest"))
        if not code:
            raise WrongLedger(what, "a RoundLedger", "empty", "check ledger.contract and ledger.rpc")
        code_hash, expected = keccak256(code), expected_code_hash()
        if code_hash != expected:
            advice = "check ledger.contract, or use the release of Folkmoot that the charter was made with"
            raise WrongLedger(f"the hash of {what}", to_hex(expected), to_hex(code_hash), advice)
        return code_hash
