"""A second verifier, which shares no code with the first: python verify.py audit.zip

By SPEC.md alone: chains, signers, headers; of archived rounds votes, locks, commitments, inclusion, payloads; no sums.
"""

# fmt: off
import functools
import hashlib
import io
import json
import lzma
import struct
import sys
import tomllib
import zipfile

P, N = 2**256 - 2**32 - 977, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
     0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8, 1)
TYPES = {
    "Statement": "bytes32 federation,uint64 round,bytes32 previous,bytes32 config,bytes32 base,bytes32 survivors,"
    "bytes32 model,bytes32 archive",
    "Amendment": "bytes32 federation,uint64 number,bytes32 previous,bytes32 charter,bytes32 blob,uint64 size,"
    "uint64 effective,bytes32[] changes",
    "Commitment": "bytes32 federation,uint64 round,bytes32 roster,uint32 member,bytes32 root,uint64 size,bytes32 key,"
    "bytes32[] shards,bytes32[] shares,bytes32[] seeds",
    "Vote": "bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors",
    "Lock": "bytes32 federation,uint64 round,uint32 attempt,bytes32 survivors,bytes32 sums",
}
ORDER = ("SKIPPED", "PASS", "INCONCLUSIVE", "FAIL")

# Of Keccak-f[1600] (FIPS 202, section 3.2): the constants of all rounds, whence lanes move, and how far.
CONSTANTS = (0x1, 0x8082, 0x800000000000808a, 0x8000000080008000, 0x808b, 0x80000001, 0x8000000080008081,
             0x8000000000008009, 0x8a, 0x88, 0x80008009, 0x8000000a, 0x8000808b, 0x800000000000008b,
             0x8000000000008089, 0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x800a,
             0x800000008000000a, 0x8000000080008081, 0x8000000000008080, 0x80000001, 0x8000000080008008)
SOURCES = [0, 6, 12, 18, 24, 3, 9, 10, 16, 22, 1, 7, 13, 19, 20, 4, 5, 11, 17, 23, 2, 8, 14, 15, 21]
SHIFTS = [0, 44, 43, 21, 14, 28, 20, 3, 45, 61, 1, 6, 25, 8, 18, 27, 36, 10, 15, 56, 62, 55, 39, 41, 2]
MOVES = [(i, shift, 64 - shift, i % 5) for i, shift in zip(SOURCES, SHIFTS)]  # noqa: B905
ROWS = [(i, i - i % 5 + (i + 1) % 5, i - i % 5 + (i + 2) % 5) for i in range(25)]

@functools.cache
def keccak(data):
    """Keccak-256 with the padding of Ethereum."""
    mask, a = 2**64 - 1, [0] * 25
    data += b"\x81" if len(data) % 136 == 135 else b"\x01" + bytes(134 - len(data) % 136) + b"\x80"
    for start in range(0, len(data), 136):
        for i, lane in enumerate(struct.unpack_from("<17Q", data, start)):
            a[i] ^= lane
        for constant in CONSTANTS:
            c = [a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20] for x in range(5)]
            d = [c[x - 1] ^ ((c[x - 4] << 1 | c[x - 4] >> 63) & mask) for x in range(5)]
            b = [((lane := a[i] ^ d[x]) << left | lane >> right) & mask for i, left, right, x in MOVES]
            a = [b[i] ^ (~b[j] & b[k]) for i, j, k in ROWS]
            a[0] ^= constant
    return struct.pack("<4Q", *a[:4])

def plus(p, q):
    """The sum of two points of secp256k1, written (x, y, z) for (x/z^2, y/z^3) so that nothing divides; None is 0."""
    if p is None or q is None:
        return p or q
    (x, y, z), (a, b, c) = p, q
    zz, cc = z * z % P, c * c % P
    u, s = x * cc % P, y * cc * c % P
    h, r = (a * zz - u) % P, (b * zz * z - s) % P
    if not h:
        return None if r else twice(p)
    hhh, v = h * (hh := h * h % P) % P, u * hh % P
    x = (r * r - hhh - 2 * v) % P
    return x, (r * (v - x) - s * hhh) % P, z * c * h % P

def twice(p):
    """The point p + p."""
    if p is None:
        return None
    x, y, z = p
    s, m = 4 * x * (yy := y * y % P) % P, 3 * x * x % P
    x = (m * m - 2 * s) % P
    return x, (m * (s - x) - 8 * yy * yy) % P, 2 * y * z % P

@functools.cache
def recover(digest, signature):
    """The address that signed a digest (EIP-2098, low s); None if nobody did."""
    r, vs = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    odd, s, z = vs >> 255, vs % 2**255, int.from_bytes(digest, "big")
    y = pow(r**3 + 7, (P + 1) // 4, P)
    if len(signature) != 64 or not 0 < r < N or not 0 < s <= N // 2 or (y * y - r**3 - 7) % P:
        return None
    # The key is (s R - z G) / r, where R is the point at r; sums[i] is i % 4 times R and i // 4 times G.
    point, own, base = (r, y if y % 2 == odd else P - y, 1), s * pow(r, -1, N) % N, -z * pow(r, -1, N) % N
    sums, total = [None], None
    for i in range(1, 16):
        sums.append(plus(sums[i - 4], G) if i > 3 else plus(sums[i - 1], point))
    for at in range(254, -2, -2):
        total = plus(twice(twice(total)), sums[own >> at & 3 | (base >> at & 3) << 2])
    if total is None:
        return None
    key = (part * pow(total[2], power, P) % P for part, power in ((total[0], -2), (total[1], -3)))
    return keccak(b"".join(part.to_bytes(32, "big") for part in key))[12:]

def word(value):
    """One value as EIP-712 encodes it."""
    value = keccak(b"".join(value)) if isinstance(value, list) else value
    return value.ljust(32, b"\0") if isinstance(value, bytes) else value.to_bytes(32, "big")

def struct_hash(name, values):
    """EIP-712 hashStruct; `values` in the order of the fields."""
    return keccak(keccak(f"{name}({TYPES[name]})".encode()) + b"".join(map(word, values)))

def tree(leaves):
    """RFC 6962 over leaves' bytes."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves] or [hashlib.sha256(b"").digest()]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if pair[1:] else pair[0] for pair in pairs]
    return level[0]

def tagged(kind, data):
    """H(kind, data) of the specification."""
    return hashlib.sha256(kind.encode() + b"\n" + data).digest()

def unpack(data, at=0):
    """The msgpack value at a place, and where it ends: what records consist of."""
    first, at = data[at], at + 1
    sizes = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDC: 2, 0xDD: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xCB: 8}
    if first < 0x80 or first == 0xC0:
        return first if first < 0x80 else None, at
    size = sizes.get(first, 0)
    number, at = int.from_bytes(data[at : at + size], "big"), at + size
    if 0xCB <= first <= 0xCF:  # 0xCB is a float: nothing here looks into those
        return number, at
    if 0x90 <= first < 0xA0 or first in (0xDC, 0xDD):
        items = []
        for _ in range(number if size else first & 15):
            item, at = unpack(data, at)
            items.append(item)
        return items, at
    end = at + (number if size else first & 31)
    if not (0xA0 <= first < 0xC0 or first in sizes) or end > len(data):
        raise ValueError(f"byte {first:#x}, or cut off")
    return data[at:end] if 0xC4 <= first <= 0xC6 else data[at:end].decode(), end

def pack(value):
    """msgpack of integers, bytes, text and lists of them, each in its shortest form."""
    if isinstance(value, list):
        head = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + len(value).to_bytes(2, "big")
        return head + b"".join(map(pack, value))
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode()
    number, code, rest = (value, 0xCC, b"") if isinstance(value, int) else (len(value), 0xC4, value)
    if code == 0xCC and number < 128:
        return bytes([number])
    size = 1 if number < 256 else 2 if number < 65536 else 4 if number < 2**32 else 8
    return bytes([code + size.bit_length() - 1]) + number.to_bytes(size, "big") + rest

def quorum(members):
    """How many of so many: any two quorums share an honest member."""
    return (members + (members - 1) // 3) // 2 + 1

class Verifier:
    """The checks of one bundle; `found` has the statuses by check, PASS unless something was told."""
    def __init__(self, files):
        self.files, self.found, self.blobs = files, {"payloads": "SKIPPED"}, {}  # so stay masked shards
        for name, data in files.items():
            self.blobs.setdefault(name[-64:], []).append(data)
        shown = json.loads(files["ledger/1.json"], object_hook=unhex)
        self.head, self.records, self.amendments = shown["head"], shown["records"], shown["amendments"]
        self.identity, self.blocks = shown["identity"], shown["proof"] or shown["unproven"] or {}
        place = self.identity["chain_id"].to_bytes(32, "big") + self.identity["contract"]
        self.federation = tagged("folkmoot/v1/federation", self.identity["charter_digest"] + place)
        domain = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
        self.domain = keccak(b"".join(map(keccak, [domain, b"Folkmoot", b"1"])) + place[:32] + bytes(12) + place[32:])
        self.statements = {r["statement"]["round"]: list(r["statement"].values()) for r in self.records}

    def tell(self, check, holds, otherwise="FAIL"):
        """Note how a check came out; the worst counts."""
        self.found[check] = max("PASS" if holds else otherwise, self.found.get(check, "PASS"), key=ORDER.index)
        return holds

    def signers(self, hashed, signatures):
        """The addresses that signed a struct hash."""
        digest = keccak(b"\x19\x01" + self.domain + hashed)
        return [recover(digest, signature) for signature in signatures]

    def check_ledger(self):
        """Statements and amendments: two chains, and enough signatures under each link."""
        attesters, previous = set(self.identity["attesters"]), self.federation
        spans = [(1, self.identity["charter_digest"], attesters)]
        for number, record in enumerate(self.amendments, 1):
            fields = record["amendment"]
            digest = struct_hash("Amendment", fields.values())
            link = (fields["number"], fields["previous"], record["digest"])
            self.tell("amendments", link == (number, previous, digest))
            height = sum(one["block"] < record["block"] for one in self.records)
            before = next(span[2] for span in reversed(spans) if span[0] <= height + 1)
            signed = len(before & set(self.signers(digest, record["signatures"])))
            self.tell("amendments", signed >= quorum(len(before)) and fields["effective"] > height)
            changed = {change[:20]: change[31] for change in fields["changes"]}
            attesters = (attesters - set(changed)) | {address for address, role in changed.items() if role == 3}
            spans = [one for one in spans if one[0] < fields["effective"]]
            spans, previous = [*spans, (fields["effective"], fields["charter"], attesters)], digest
        self.tell("amendments", (len(self.amendments), previous) == (self.head["amendments"], self.head["governance"]))
        self.tell("rounds", [one["statement"]["round"] for one in self.records] == [*range(1, self.head["height"] + 1)])
        previous = model = None
        for number, record in enumerate(self.records, 1):
            said = record["statement"]
            _, config, able = next(span for span in reversed(spans) if span[0] <= said["round"])
            digest = struct_hash("Statement", said.values())
            self.tell("chain-id", said["federation"] == self.federation)
            self.tell("hash-chain", (said["previous"], record["digest"]) == (previous or said["federation"], digest))
            self.tell("bases", model in (None, said["base"]))
            self.tell("amendments", said["config"] == config)
            alone = record["signed"] == record["digest"]
            followed = any(one["digest"] == record["signed"] for one in self.records[number : number + 31])
            signed = able & set(self.signers(digest if alone else record["signed"], record["signatures"]))
            self.tell("quorum", (alone or followed) and len(signed) >= quorum(len(able)))
            previous, model = digest, said["model"]
        self.tell("hash-chain", previous in (None, self.head["digest"]))
        if self.found["rounds"] == "FAIL":
            self.found |= {"hash-chain": "SKIPPED", "bases": "SKIPPED"}  # the first fault stands alone
        for block in filter(None, (self.blocks.get("latest"), self.blocks.get("final"))):
            self.tell("headers", keccak(block["header"]) == block["hash"])

    def check_archives(self):
        """Every record of every archive, and that there is one of every round."""
        charters = {name: tomllib.loads(data.decode()) for name, data in self.files.items() if name.endswith(".toml")}
        records = {name: int(name[-15:-7]) for name in self.files if name.endswith(".record")}
        for name, number in records.items():
            try:
                _, _, committed, (_, v, votes), (_, opened, locks), attested, model, *_ = unpack(self.files[name])[0]
                charter = charters.get(f"charter/charters/{opened[3].hex()}.toml") or charters["charter/charter.toml"]
                self.keys = [bytes.fromhex(member["audit_key"][2:]) for member in charter["members"]]
                self.check_record(number, v, votes, opened, locks, committed, attested, model)
                self.tell("records", True)
            except (ValueError, TypeError, IndexError):
                self.tell("records", False)
        self.tell("records", {*records.values()} >= set(self.statements), "INCONCLUSIVE")

    def check_record(self, number, v, votes, opened, locks, committed, attested, model):
        """One round: who voted and locked, what the ledger says of it, and what was committed to."""
        digest = tagged("folkmoot/v1/survivors", pack(opened))
        same, recorded = opened[0] == number, self.statements.get(number, [])
        self.tell("certificates", v == opened and self.is_quorum("Vote", votes, [self.federation, v[0]], digest))
        self.tell("openings", same and self.is_quorum("Lock", locks, [self.federation, number], digest))
        otherwise = "FAIL" if recorded else "INCONCLUSIVE" if number > self.head["height"] else "PASS"  # a gap
        expected = [self.federation, number, opened[2], opened[3], opened[1], digest, model[0]]
        agreed = all(one[2][1:] == recorded and self.is_signed("Statement", one) for one in attested)
        self.tell("statements", recorded[:7] == expected and agreed, otherwise)
        self.tell("inclusion", [tree(map(pack, opened[5]))] == recorded[7:], otherwise)
        bodies = [signed[2] for signed in committed if same]
        named = [[body[4], tagged("folkmoot/v1/commitment", pack(body))] for body in bodies]
        about = all(body[1:4] == [self.federation, number, opened[4]] for body in bodies)
        signed = all(self.is_signed("Commitment", one) for one in committed)
        good = not same or self.tell("commitments", named == opened[5] and about and signed)
        if good and not any(body[8] for body in bodies):  # in secure mode the payloads are masked shards
            for body in bodies:
                blobs = self.blobs.get(body[5].hex(), [])
                self.tell("payloads", blobs != [], "INCONCLUSIVE")
                chunks = [[data[at : at + 2**20] for at in range(0, len(data), 2**20)] for data in blobs]
                self.tell("payloads", all(tree(each) == body[5] and sum(map(len, each)) == body[6] for each in chunks))

    def is_signed(self, kind, signed):
        """Whether its member signed a body of this kind."""
        _, member, (_, *values), signature = signed
        return self.signers(struct_hash(kind, values), [signature]) == [self.keys[member]]

    def is_quorum(self, kind, listed, about, digest):
        """Whether enough members, each once, signed one body of this kind, round and survivor set."""
        bodies, members = [signed[2] for signed in listed], [signed[1] for signed in listed]
        good = all(self.is_signed(kind, signed) for signed in listed) and members == sorted(set(members))
        one = bodies.count(bodies[0]) == len(bodies) and bodies[0][1:3] == about and bodies[0][4] == digest
        return good and one and len(members) >= quorum(len(self.keys))

def unhex(values):
    """JSON's texts "0x..." as bytes."""
    change = lambda value: bytes.fromhex(value[2:]) if str(value)[:2] == "0x" else value  # noqa: E731
    return {name: [*map(change, v)] if isinstance(v, list) else change(v) for name, v in values.items()}

def main(path):
    """Verify the bundle; print JSON, return the exit code."""
    with zipfile.ZipFile(path) as bundle:
        files = {one.filename: bundle.read(one) for one in bundle.infolist() if one.compress_type in (0, 8)}
    packed = io.BytesIO(lzma.LZMADecompressor().decompress(data := files.pop("packed.xz"), 2**29 + 200 * len(data)))
    while line := packed.readline():
        files[line.split()[0].decode()] = packed.read(int(line.split()[1]))
    for name, digest in json.loads(files["manifest.json"])["files"].items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            sys.exit(f"{name} is not what the manifest says")
    (verifier := Verifier(files)).check_ledger()
    if "charter/charter.toml" in files:
        verifier.check_archives()
    worst = max("PASS", *verifier.found.values(), key=ORDER.index)
    print(json.dumps({"status": worst, "checks": verifier.found}, indent=1))
    return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[worst]

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except Exception as error:  # whatever a stranger's file may bring about
        sys.exit(print(f"usage: verify.py BUNDLE: no readable bundle: {error!r}", file=sys.stderr) or 2)
