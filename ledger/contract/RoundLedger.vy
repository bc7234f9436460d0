#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize gas
"""
@title RoundLedger
@license Apache-2.0
@notice The public record of one federation: a chain of statements, one for each round, each signed by a quorum of
        the federation's attesters. It holds no money, has no owner, and nothing in it can be changed or undone.
@dev Every deployment has the same runtime code (there are no immutables), so a charter can name its hash before
     the contract has an address. The signatures carry the authority: anybody may submit a statement and pay for it.
"""

struct Statement:
    federation: bytes32
    round: uint64
    previous: bytes32
    config: bytes32
    base: bytes32
    survivors: bytes32
    model: bytes32
    archive: bytes32

# A compact signature (EIP-2098): the parity of the curve point is the top bit of `vs`, the rest of it is s.
struct Signature:
    r: bytes32
    vs: bytes32

# With `federation()`, the event repeats the whole statement: an auditor needs no calldata to rebuild the chain.
event Finalized:
    round: indexed(uint64)
    digest: indexed(bytes32)
    model: indexed(bytes32)
    previous: bytes32
    config: bytes32
    base: bytes32
    survivors: bytes32
    archive: bytes32
    submitter: address

MAX_ATTESTERS: constant(uint256) = 31
HEIGHT_MASK: constant(uint256) = 2**64 - 1
FEDERATION_TYPE: constant(Bytes[23]) = b"folkmoot/v1/federation\n"
DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
STATEMENT_TYPE_HASH: constant(bytes32) = keccak256(
    "Statement(bytes32 federation,uint64 round,bytes32 previous,bytes32 config,bytes32 base,bytes32 survivors,bytes32 model,bytes32 archive)"
)
NAME_HASH: constant(bytes32) = keccak256("Folkmoot")
VERSION_HASH: constant(bytes32) = keccak256("1")
S_MASK: constant(uint256) = max_value(uint256) >> 1
# Half the order of secp256k1: of a signature's two forms only the one with the smaller s counts.
MAX_S: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

# The digest of the last statement, each of which names the one before it; at the founding, the federation id.
head: public(bytes32)
federation: public(bytes32)
charter_digest: public(bytes32)
# The number of the block that holds the deployment: who looks for events starts there.
founded_at: public(uint256)
# quorum * 2**64 + height: one slot, because each one that `finalize` touches costs at least 2100 gas.
_position: uint256
_attesters: DynArray[address, MAX_ATTESTERS]
_is_attester: HashMap[address, bool]


@deploy
def __init__(charter_digest: bytes32, attesters: DynArray[address, MAX_ATTESTERS]):
    """
    @param charter_digest The digest of the charter that all members signed.
    @param attesters The addresses of the attesters' audit keys, strictly ascending; 1 to 31 of them.
    """
    n: uint256 = len(attesters)
    assert n > 0, "no attesters"
    last: uint160 = 0
    for attester: address in attesters:
        current: uint160 = convert(attester, uint160)
        assert current > last, "attesters not ascending"
        last = current
        self._is_attester[attester] = True
    self._attesters = attesters
    # floor((n + f) / 2) + 1 of n, with f = floor((n - 1) / 3): any two quorums share an honest attester.
    self._position = ((n + (n - 1) // 3) // 2 + 1) << 64
    self.charter_digest = charter_digest
    self.founded_at = block.number
    founding: bytes32 = sha256(
        concat(FEDERATION_TYPE, charter_digest, convert(chain.id, bytes32), convert(self, bytes20))
    )
    self.federation = founding
    self.head = founding


@external
def finalize(statement: Statement, signatures: DynArray[Signature, MAX_ATTESTERS]):
    """
    @notice Record the statement of the next round. It reverts unless the statement continues the head and at least
            a quorum of attesters signed it.
    @param statement What the round was made of.
    @param signatures EIP-712 signatures of it, in strictly ascending order of their signers' addresses.
    """
    position: uint256 = self._position + 1
    assert convert(statement.round, uint256) == position & HEIGHT_MASK, "round"
    assert statement.previous == self.head, "previous"
    assert statement.federation == self.federation, "federation"
    assert len(signatures) >= position >> 64, "quorum"

    digest: bytes32 = keccak256(abi_encode(STATEMENT_TYPE_HASH, statement))
    signed: bytes32 = keccak256(concat(b"\x19\x01", self._domain_separator(), digest))
    last: uint160 = 0
    for signature: Signature in signatures:
        vs: uint256 = convert(signature.vs, uint256)
        s: uint256 = vs & S_MASK
        assert s <= MAX_S, "high s"
        # An invalid signature recovers to the zero address, which is not above any other.
        signer: address = ecrecover(signed, 27 + (vs >> 255), convert(signature.r, uint256), s)
        current: uint160 = convert(signer, uint160)
        assert current > last, "order"
        assert self._is_attester[signer], "attester"
        last = current

    self.head = digest
    self._position = position
    log Finalized(
        round=statement.round,
        digest=digest,
        model=statement.model,
        previous=statement.previous,
        config=statement.config,
        base=statement.base,
        survivors=statement.survivors,
        archive=statement.archive,
        submitter=msg.sender,
    )


@external
@view
def height() -> uint64:
    """
    @notice The round of the last statement; 0 at the founding.
    """
    return convert(self._position & HEIGHT_MASK, uint64)


@external
@view
def quorum() -> uint256:
    """
    @notice How many attesters must sign a statement.
    """
    return self._position >> 64


@external
@view
def attesters() -> DynArray[address, MAX_ATTESTERS]:
    """
    @notice The attesters' addresses, ascending.
    """
    return self._attesters


@internal
@view
def _domain_separator() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPE_HASH, NAME_HASH, VERSION_HASH, chain.id, self))
