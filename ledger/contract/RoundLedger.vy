#pragma version 0.4.3
#pragma evm-version cancun
#pragma optimize gas
"""
@title RoundLedger
@license Apache-2.0
@notice The public record of one federation: a chain of statements, one for each round, each signed by a quorum of
        the federation's attesters, and a chain of amendments, by which a quorum changes the charter and the roles of
        members. It holds no money, has no owner, and nothing that stands in it can be changed or undone.
@dev Every deployment has the same runtime code (there are no immutables), so a charter can name its hash before
     the contract has an address. The signatures carry the authority: anybody may submit them and pay for it.
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

# A new charter, in force from round `effective` on, and where its text is to be had: a blob of `size` bytes.
# Each change is an address (20 bytes), 11 zero bytes and the address's new role.
struct Amendment:
    federation: bytes32
    number: uint64
    previous: bytes32
    charter: bytes32
    blob: bytes32
    size: uint64
    effective: uint64
    changes: DynArray[bytes32, MAX_CHANGES]

# A compact signature (EIP-2098): the parity of the curve point is the top bit of `vs`, the rest of it is s.
struct Signature:
    r: bytes32
    vs: bytes32

# What a waiting amendment will change: `terms` is quorum * 2**64 + the round from which on it is in force.
struct Pending:
    charter: bytes32
    terms: uint256

event Founded:
    charter: indexed(bytes32)
    federation: indexed(bytes32)
    lead: uint64
    attesters: DynArray[address, MAX_ATTESTERS]
    others: uint256

event Enrolled:
    members: DynArray[address, MAX_BATCH]

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

event Attested:
    round: indexed(uint64)
    digest: indexed(bytes32)
    attester: indexed(address)
    r: bytes32
    vs: bytes32

event Amended:
    number: indexed(uint64)
    digest: indexed(bytes32)
    charter: indexed(bytes32)
    previous: bytes32
    blob: bytes32
    size: uint64
    effective: uint64
    submitter: address
    changes: DynArray[bytes32, MAX_CHANGES]

event Equivocated:
    member: indexed(address)
    kind: indexed(uint256)
    first: DynArray[bytes32, MAX_WORDS]
    second: DynArray[bytes32, MAX_WORDS]
    submitter: address

MAX_ATTESTERS: constant(uint256) = 31
MAX_BATCH: constant(uint256) = 256
MAX_CHANGES: constant(uint256) = 64
MAX_PENDING: constant(uint256) = 8
MAX_ROUNDS: constant(uint256) = 32
MAX_WORDS: constant(uint256) = 10
# Of all attesters there ever were; what bounds the view, not the record.
MAX_LISTED: constant(uint256) = 2**16

REMOVED: constant(uint256) = 0
MEMBER: constant(uint256) = 2
ATTESTER: constant(uint256) = 3

NEVER: constant(uint256) = 2**64 - 1
U64: constant(uint256) = 2**64 - 1
# The places in `_position`: height, then where the next amendment comes into force, quorum, and missing members.
NEXT: constant(uint256) = 64
QUORUM: constant(uint256) = 128
MISSING: constant(uint256) = 136
# The places in a word of `_members`: the round of the last change of role, then the roles before and from it on.
BEFORE: constant(uint256) = 64
AFTER: constant(uint256) = 66
FLAGGED: constant(uint256) = 1 << 68
LISTED: constant(uint256) = 1 << 69
# The places in `_governance`: number of amendments, then how many are in force, the last one's round, and the
# number of attesters after it.
APPLIED: constant(uint256) = 64
EFFECTIVE: constant(uint256) = 128
ATTESTERS: constant(uint256) = 192

FEDERATION_TYPE: constant(Bytes[23]) = b"folkmoot/v1/federation\n"
DOMAIN_TYPE_HASH: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
STATEMENT_TYPE_HASH: constant(bytes32) = keccak256(
    "Statement(bytes32 federation,uint64 round,bytes32 previous,bytes32 config,bytes32 base,bytes32 survivors,bytes32 model,bytes32 archive)"
)
AMENDMENT_TYPE_HASH: constant(bytes32) = keccak256(
    "Amendment(bytes32 federation,uint64 number,bytes32 previous,bytes32 charter,bytes32 blob,uint64 size,uint64 effective,bytes32[] changes)"
)
COMMITMENT_TYPE_HASH: constant(bytes32) = keccak256(
    "Commitment(bytes32 federation,uint64 round,bytes32 roster,uint32 member,bytes32 root,uint64 size,bytes32 key,bytes32[] shards,bytes32[] shares,bytes32[] seeds)"
)
PROPOSAL_TYPE_HASH: constant(bytes32) = keccak256(
    "Proposal(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors,bytes32 omitted)"
)
VOTE_TYPE_HASH: constant(bytes32) = keccak256(
    "Vote(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors)"
)
LOCK_TYPE_HASH: constant(bytes32) = keccak256(
    "Lock(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors,bytes32 sums)"
)
SUM_TYPE_HASH: constant(bytes32) = keccak256(
    "Sum(bytes32 federation,uint64 round,bytes32 survivors,uint32 shard,bytes32 root,uint64 size)"
)
FINGERPRINT_TYPE_HASH: constant(bytes32) = keccak256(
    "Fingerprint(bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors,bytes32 sums,bytes values)"
)
# What may be reported, by `kind`: the type, its words, and how many of them say what the body is the only one of.
TYPE_HASHES: constant(bytes32[7]) = [
    STATEMENT_TYPE_HASH,
    COMMITMENT_TYPE_HASH,
    PROPOSAL_TYPE_HASH,
    VOTE_TYPE_HASH,
    LOCK_TYPE_HASH,
    SUM_TYPE_HASH,
    FINGERPRINT_TYPE_HASH,
]
WORDS: constant(uint256[7]) = [8, 10, 5, 4, 5, 6, 6]
PREFIXES: constant(uint256[7]) = [2, 4, 3, 3, 3, 4, 3]

NAME_HASH: constant(bytes32) = keccak256("Folkmoot")
VERSION_HASH: constant(bytes32) = keccak256("1")
S_MASK: constant(uint256) = max_value(uint256) >> 1
# Half the order of secp256k1: of a signature's two forms only the one with the smaller s counts.
MAX_S: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

# The digest of the last statement, each of which names the one before it; at the founding, the federation id.
head: public(bytes32)
# The digest of the last amendment, likewise.
governance_head: public(bytes32)
# The digest of the charter in force at the next round.
config: public(bytes32)
federation: public(bytes32)
# The founding charter.
charter_digest: public(bytes32)
# A hash chain, from `charter_digest`, over the addresses of all founding members: attesters, then the others.
founding_members: public(bytes32)
# The number of the block that holds the deployment: who looks for events starts there.
founded_at: public(uint256)
# How many rounds may be under way beyond the record: an amendment takes effect after them.
lead: public(uint64)
# One slot, because each one that `finalize` touches costs at least 2100 gas.
_position: uint256
_governance: uint256
# One word for each address that ever had a role.
_members: HashMap[address, uint256]
_pending: HashMap[uint256, Pending]
# Who attested a statement one by one, and how many have.
_attested: HashMap[bytes32, HashMap[address, bool]]
_tally: HashMap[bytes32, uint256]
# Every address that ever was an attester; the founding ones are the first.
_listed: DynArray[address, MAX_LISTED]
_founders: uint256
# Who may enrol members while some are missing.
_deployer: address


@deploy
def __init__(
    charter_digest: bytes32, attesters: DynArray[address, MAX_ATTESTERS], others: uint256, lead: uint64
):
    """
    @param charter_digest The digest of the charter that all members signed.
    @param attesters The addresses of the attesters' audit keys, strictly ascending; 1 to 31 of them.
    @param others How many members are no attesters: nothing can be recorded until they are enrolled.
    @param lead The charter's max_ahead.
    """
    n: uint256 = len(attesters)
    assert n > 0, "no attesters"
    assert others < 2**16, "others"
    assert lead > 0, "lead"
    members: bytes32 = charter_digest
    last: uint160 = 0
    for attester: address in attesters:
        current: uint160 = convert(attester, uint160)
        assert current > last, "attesters not ascending"
        last = current
        self._members[attester] = LISTED | (ATTESTER << AFTER)
        members = keccak256(concat(members, convert(attester, bytes20)))
    self._listed = attesters
    self._founders = n
    self._governance = n << ATTESTERS
    self._position = (others << MISSING) | (self._quorum_of(n) << QUORUM) | (NEVER << NEXT)
    self.charter_digest = charter_digest
    self.config = charter_digest
    self.founding_members = members
    self.founded_at = block.number
    self.lead = lead
    if others > 0:
        self._deployer = msg.sender
    founding: bytes32 = sha256(
        concat(FEDERATION_TYPE, charter_digest, convert(chain.id, bytes32), convert(self, bytes20))
    )
    self.federation = founding
    self.head = founding
    self.governance_head = founding
    log Founded(charter=charter_digest, federation=founding, lead=lead, attesters=attesters, others=others)


@external
def enrol(members: DynArray[address, MAX_BATCH]):
    """
    @notice Part of the founding: name members that are no attesters. The deployer may, while some are missing.
    @param members Their audit keys' addresses, strictly ascending.
    """
    position: uint256 = self._position
    assert len(members) <= position >> MISSING, "enrolled"
    assert msg.sender == self._deployer, "deployer"
    chained: bytes32 = self.founding_members
    last: uint160 = 0
    for member: address in members:
        current: uint160 = convert(member, uint160)
        assert current > last, "members not ascending"
        last = current
        assert self._members[member] == 0, "known"
        self._members[member] = MEMBER << AFTER
        chained = keccak256(concat(chained, convert(member, bytes20)))
    self.founding_members = chained
    self._position = position - (len(members) << MISSING)
    log Enrolled(members=members)


@external
def finalize(statement: Statement, signatures: DynArray[Signature, MAX_ATTESTERS]):
    """
    @notice Record the statement of the next round. It reverts unless the statement continues the head and at least
            a quorum of attesters signed it.
    @param statement What the round was made of.
    @param signatures EIP-712 signatures of it, in strictly ascending order of their signers' addresses.
    """
    position: uint256 = self._founded()
    digest: bytes32 = self._check(statement, (position & U64) + 1, self.head)
    self._check_quorum(digest, signatures, position)
    self._record(statement, digest)
    self._advance(position + 1, digest)


@external
def attest(statement: Statement, signature: Signature):
    """
    @notice Record the statement of the next round one attester at a time, where signatures cannot be gathered.
    @param statement What the round was made of; it has to continue the head.
    @param signature One attester's EIP-712 signature of it.
    """
    position: uint256 = self._founded()
    digest: bytes32 = self._check(statement, (position & U64) + 1, self.head)
    signer: address = self._signer(self._signed(digest), signature)
    assert self._role_at(self._members[signer], (position & U64) + 1) == ATTESTER, "attester"
    assert not self._attested[digest][signer], "attested"
    self._attested[digest][signer] = True
    tally: uint256 = self._tally[digest] + 1
    self._tally[digest] = tally
    log Attested(round=statement.round, digest=digest, attester=signer, r=signature.r, vs=signature.vs)
    if tally >= (position >> QUORUM) & 255:
        self._record(statement, digest)
        self._advance(position + 1, digest)


@external
def checkpoint(
    statements: DynArray[Statement, MAX_ROUNDS], signatures: DynArray[Signature, MAX_ATTESTERS]
):
    """
    @notice Record several rounds at once. Each statement names the one before it, so who signed the last one has
            signed them all.
    @param statements Of consecutive rounds under one charter; the first continues the head.
    @param signatures EIP-712 signatures of the last one, in strictly ascending order of their signers' addresses.
    """
    assert len(statements) > 0, "no statements"
    position: uint256 = self._founded()
    digest: bytes32 = self.head
    for statement: Statement in statements:
        position += 1
        digest = self._check(statement, position & U64, digest)
        self._record(statement, digest)
    assert position & U64 < (position >> NEXT) & U64, "config"
    self._check_quorum(digest, signatures, position - 1)
    self._advance(position, digest)


@external
def amend(amendment: Amendment, signatures: DynArray[Signature, MAX_ATTESTERS]):
    """
    @notice Put a new charter into force from a later round on, with changes of roles. It reverts unless a quorum of
            the attesters of the next round signed it, and no round that may be under way is concerned.
    @param amendment What changes; it has to continue the chain of amendments.
    @param signatures EIP-712 signatures of it, in strictly ascending order of their signers' addresses.
    """
    position: uint256 = self._founded()
    governance: uint256 = self._governance
    effective: uint256 = convert(amendment.effective, uint256)
    number: uint256 = (governance & U64) + 1
    assert convert(amendment.number, uint256) == number, "number"
    assert amendment.previous == self.governance_head, "previous"
    assert amendment.federation == self.federation, "federation"
    assert effective > (position & U64) + convert(self.lead, uint256), "effective"
    assert effective >= (governance >> EFFECTIVE) & U64 and effective < NEVER, "effective"
    assert number - ((governance >> APPLIED) & U64) <= MAX_PENDING, "pending"
    digest: bytes32 = keccak256(
        abi_encode(
            AMENDMENT_TYPE_HASH,
            amendment.federation,
            amendment.number,
            amendment.previous,
            amendment.charter,
            amendment.blob,
            amendment.size,
            amendment.effective,
            keccak256(slice(abi_encode(amendment.changes, ensure_tuple=False), 32, 32 * len(amendment.changes))),
        )
    )
    self._check_quorum(digest, signatures, position)

    attesters: uint256 = governance >> ATTESTERS
    last: uint256 = 0
    for change: bytes32 in amendment.changes:
        current: uint256 = convert(change, uint256) >> 96
        assert current > last, "changes not ascending"
        last = current
        attesters = self._change(change, (position & U64) + 1, effective, attesters)
    assert attesters > 0 and attesters <= MAX_ATTESTERS, "attesters"

    self.governance_head = digest
    self._pending[number] = Pending(
        charter=amendment.charter, terms=(self._quorum_of(attesters) << 64) | effective
    )
    self._governance = (
        (attesters << ATTESTERS) | (effective << EFFECTIVE) | (governance & (U64 << APPLIED)) | number
    )
    if (position >> NEXT) & U64 == NEVER:
        self._position = position - ((NEVER - effective) << NEXT)
    log Amended(
        number=amendment.number,
        digest=digest,
        charter=amendment.charter,
        previous=amendment.previous,
        blob=amendment.blob,
        size=amendment.size,
        effective=amendment.effective,
        submitter=msg.sender,
        changes=amendment.changes,
    )


@external
def report(
    kind: uint256,
    first: DynArray[bytes32, MAX_WORDS],
    second: DynArray[bytes32, MAX_WORDS],
    first_signature: Signature,
    second_signature: Signature,
):
    """
    @notice Flag a member, present or former, that signed two things of which it may sign only one. What follows from
            it is for an amendment to say.
    @param kind Which type the two are of: the place in `TYPE_HASHES`.
    @param first The words of EIP-712's encodeData, without the type's hash.
    @param second The same of the other.
    """
    assert kind < 7, "kind"
    assert len(first) == WORDS[kind] and len(second) == WORDS[kind], "words"
    assert first[0] == self.federation, "federation"
    for place: uint256 in range(4):
        if place < PREFIXES[kind]:
            assert first[place] == second[place], "different things"
    digests: bytes32[2] = [self._hash_words(kind, first), self._hash_words(kind, second)]
    assert digests[0] != digests[1], "the same"
    member: address = self._signer(self._signed(digests[0]), first_signature)
    assert member == self._signer(self._signed(digests[1]), second_signature), "signers"
    word: uint256 = self._members[member]
    assert word != 0, "member"
    assert word & FLAGGED == 0, "flagged"
    self._members[member] = word | FLAGGED
    log Equivocated(member=member, kind=kind, first=first, second=second, submitter=msg.sender)


@external
@view
def height() -> uint64:
    """
    @notice The round of the last statement; 0 at the founding.
    """
    return convert(self._position & U64, uint64)


@external
@view
def quorum() -> uint256:
    """
    @notice How many attesters must sign the next statement.
    """
    return (self._position >> QUORUM) & 255


@external
@view
def missing() -> uint256:
    """
    @notice How many members the founding still lacks.
    """
    return self._position >> MISSING


@external
@view
def amendments() -> uint64:
    """
    @notice How many amendments there are, those included that are not in force yet.
    """
    return convert(self._governance & U64, uint64)


@external
@view
def position() -> (uint64, bytes32, bytes32, uint64, bytes32):
    """
    @notice Where the record stands, in one call: height, head, config, amendments, governance_head.
    """
    return (
        convert(self._position & U64, uint64),
        self.head,
        self.config,
        convert(self._governance & U64, uint64),
        self.governance_head,
    )


@external
@view
def role(member: address) -> uint256:
    """
    @notice The role of an address at the next round: 0 none or removed, 1 suspended, 2 member, 3 attester.
    """
    return self._role_at(self._members[member], (self._position & U64) + 1)


@external
@view
def flagged(member: address) -> bool:
    """
    @notice Whether it was shown that this member signed two things of which it may sign only one.
    """
    return self._members[member] & FLAGGED != 0


@external
@view
def founders() -> DynArray[address, MAX_ATTESTERS]:
    """
    @notice The attesters of the founding charter, ascending.
    """
    found: DynArray[address, MAX_ATTESTERS] = []
    for place: uint256 in range(self._founders, bound=MAX_ATTESTERS):
        found.append(self._listed[place])
    return found


@external
@view
def attesters() -> DynArray[address, MAX_ATTESTERS]:
    """
    @notice The attesters of the next round, in the order in which they first became attesters.
    """
    found: DynArray[address, MAX_ATTESTERS] = []
    round: uint256 = (self._position & U64) + 1
    for place: uint256 in range(len(self._listed), bound=MAX_LISTED):
        if self._role_at(self._members[self._listed[place]], round) == ATTESTER:
            found.append(self._listed[place])
    return found


@internal
@view
def _founded() -> uint256:
    """
    @dev The position, once all members are enrolled.
    """
    position: uint256 = self._position
    assert position >> MISSING == 0, "founding"
    return position


@internal
@view
def _check(statement: Statement, round: uint256, previous: bytes32) -> bytes32:
    """
    @dev The digest of a statement that is of this round, charter and federation, and continues `previous`.
    """
    assert convert(statement.round, uint256) == round, "round"
    assert statement.previous == previous, "previous"
    assert statement.config == self.config, "config"
    assert statement.federation == self.federation, "federation"
    return keccak256(abi_encode(STATEMENT_TYPE_HASH, statement))


@internal
@view
def _check_quorum(
    digest: bytes32, signatures: DynArray[Signature, MAX_ATTESTERS], position: uint256
):
    """
    @dev At least a quorum of the attesters of the round after `position` signed `digest`, each once.
    """
    assert len(signatures) >= (position >> QUORUM) & 255, "quorum"
    round: uint256 = (position & U64) + 1
    signed: bytes32 = self._signed(digest)
    last: uint160 = 0
    for signature: Signature in signatures:
        signer: address = self._signer(signed, signature)
        # An invalid signature recovers to the zero address, which is not above any other.
        current: uint160 = convert(signer, uint160)
        assert current > last, "order"
        assert self._role_at(self._members[signer], round) == ATTESTER, "attester"
        last = current


@internal
@pure
def _signer(signed: bytes32, signature: Signature) -> address:
    vs: uint256 = convert(signature.vs, uint256)
    s: uint256 = vs & S_MASK
    assert s <= MAX_S, "high s"
    return ecrecover(signed, 27 + (vs >> 255), convert(signature.r, uint256), s)


@internal
@view
def _signed(digest: bytes32) -> bytes32:
    separator: bytes32 = keccak256(abi_encode(DOMAIN_TYPE_HASH, NAME_HASH, VERSION_HASH, chain.id, self))
    return keccak256(concat(b"\x19\x01", separator, digest))


@internal
@pure
def _role_at(word: uint256, round: uint256) -> uint256:
    if round >= word & U64:
        return (word >> AFTER) & 3
    return (word >> BEFORE) & 3


@internal
@pure
def _quorum_of(n: uint256) -> uint256:
    """
    @dev floor((n + f) / 2) + 1 with f = floor((n - 1) / 3): any two quorums share an honest attester.
    """
    return (n + (n - 1) // 3) // 2 + 1


@internal
def _record(statement: Statement, digest: bytes32):
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


@internal
def _advance(position: uint256, digest: bytes32):
    """
    @dev Take the new height and head, and the amendments that are in force from the next round on.
    """
    self.head = digest
    if (position & U64) + 1 < (position >> NEXT) & U64:
        self._position = position
        return
    governance: uint256 = self._governance
    applied: uint256 = (governance >> APPLIED) & U64
    quorum: uint256 = 0
    next: uint256 = (position >> NEXT) & U64
    for _: uint256 in range(MAX_PENDING):
        applied += 1
        self.config = self._pending[applied].charter
        quorum = self._pending[applied].terms >> 64
        # After the last one there is none, and nothing in its place.
        next = self._pending[applied + 1].terms & U64
        if next == 0:
            next = NEVER
        if (position & U64) + 1 < next:
            break
    self._governance = (governance & ~(U64 << APPLIED)) | (applied << APPLIED)
    self._position = (quorum << QUORUM) | (next << NEXT) | (position & U64)


@internal
def _change(change: bytes32, round: uint256, effective: uint256, attesters: uint256) -> uint256:
    """
    @dev Give an address its role from `effective` on; returns how many attesters there are then.
    """
    number: uint256 = convert(change, uint256)
    member: address = convert(number >> 96, address)
    role: uint256 = number & (2**96 - 1)
    word: uint256 = self._members[member]
    before: uint256 = self._role_at(word, round)
    assert role <= ATTESTER and role != before, "change"
    # One that waits already would be lost.
    assert word & U64 <= round, "pending"
    word = (word & (FLAGGED | LISTED)) | (role << AFTER) | (before << BEFORE) | effective
    after: uint256 = attesters
    if role == ATTESTER:
        after += 1
        if word & LISTED == 0:
            word |= LISTED
            self._listed.append(member)
    elif before == ATTESTER:
        after -= 1
    self._members[member] = word
    return after


@internal
@pure
def _hash_words(kind: uint256, words: DynArray[bytes32, MAX_WORDS]) -> bytes32:
    packed: Bytes[32 + 32 * MAX_WORDS] = slice(abi_encode(words, ensure_tuple=False), 32, 32 * len(words))
    return keccak256(concat(TYPE_HASHES[kind], packed))
