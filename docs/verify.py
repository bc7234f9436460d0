"""A second verifier, which shares no code with the first: python verify.py audit.zip

It reads a bundle (SPEC.md, section 11) and checks again, as SPEC.md says, the statements, amendments, signers, headers,
and of every archived round votes, locks, commitments, inclusion and payloads; no state proofs, no sums.
"""

# fmt: off
import hashlib
import json
import sys
import tomllib
import zipfile

P, N = 2**256 - 2**32 - 977, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
     0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8)
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

def keccak(data):
    """Keccak-256 with the padding of Ethereum."""
    mask, lanes = 2**64 - 1, [0] * 25
    rotate = lambda x, n: ((x << n) | (x >> (64 - n))) & mask  # noqa: E731
    data += b"\x01" + bytes(-(len(data) + 1) % 136)
    data = data[:-1] + bytes([data[-1] | 0x80])
    for block in range(0, len(data), 136):
        for i in range(17):
            lanes[i] ^= int.from_bytes(data[block + 8 * i : block + 8 * i + 8], "little")
        lfsr = 1
        for _ in range(24):
            c = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
            lanes = [lanes[i] ^ c[(i + 4) % 5] ^ rotate(c[(i + 1) % 5], 1) for i in range(25)]
            x, y, current = 1, 0, lanes[1]
            for t in range(24):
                x, y = y, (2 * x + 3 * y) % 5
                lanes[x + 5 * y], current = rotate(current, (t + 1) * (t + 2) // 2 % 64), lanes[x + 5 * y]
            row = lambda i, n: lanes[i - i % 5 + (i + n) % 5]  # noqa: B023, E731
            lanes = [lanes[i] ^ (~row(i, 1) & row(i, 2)) for i in range(25)]
            for j in range(7):
                if lfsr & 1:
                    lanes[0] ^= 1 << ((1 << j) - 1)
                lfsr = (lfsr << 1) ^ (0x171 if lfsr >> 7 else 0)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes[:4])

def add(p, q):
    """The sum of two points of secp256k1; None is the point at infinity."""
    if p is None or q is None or (p[0] == q[0] and p[1] != q[1]):
        return (p or q) if None in (p, q) else None
    rise, run = (3 * p[0] ** 2, 2 * p[1]) if p == q else (q[1] - p[1], q[0] - p[0])
    slope = rise * pow(run, -1, P) % P
    x = (slope * slope - p[0] - q[0]) % P
    return x, (slope * (p[0] - x) - p[1]) % P

def times(k, p):
    """The point p, k times."""
    total = None
    while k:
        total, p, k = add(total, p) if k & 1 else total, add(p, p), k >> 1
    return total

def recover(digest, signature):
    """The address that signed a digest (EIP-2098, low s); None if nobody did."""
    r, vs = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    odd, s, z = vs >> 255, vs % 2**255, int.from_bytes(digest, "big")
    y = pow(r**3 + 7, (P + 1) // 4, P)
    if len(signature) != 64 or not 0 < r < N or not 0 < s <= N // 2 or (y * y - r**3 - 7) % P:
        return None
    point = (r, y if y % 2 == odd else P - y)
    key = times(pow(r, -1, N), add(times(s, point), times(-z % N, G)))
    return key and keccak(key[0].to_bytes(32, "big") + key[1].to_bytes(32, "big"))[12:]

def word(kind, value):
    """One value as EIP-712 encodes it."""
    if kind.endswith("[]"):
        return keccak(b"".join(value))
    return value.ljust(32, b"\0") if isinstance(value, bytes) else value.to_bytes(32, "big")

def struct_hash(name, values):
    """EIP-712 hashStruct; `values` in the order of the fields."""
    kinds = [field.split()[0] for field in TYPES[name].split(",")]
    words = [word(kind, value) for kind, value in zip(kinds, values, strict=True)]
    return keccak(keccak(f"{name}({TYPES[name]})".encode()) + b"".join(words))

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
    sizes = {
        0xC4: 1,
        0xC5: 2,
        0xC6: 4,
        0xD9: 1,
        0xDA: 2,
        0xDC: 2,
        0xDD: 4,
        0xCC: 1,
        0xCD: 2,
        0xCE: 4,
        0xCF: 8,
    }
    if first < 0x80 or first == 0xC0:
        return first if first < 0x80 else None, at
    if first == 0xCB:  # a float: nothing here looks into those
        return data[at : at + 8], at + 8
    size = sizes.get(first, 0)
    number, at = int.from_bytes(data[at : at + size], "big"), at + size
    if 0xCC <= first <= 0xCF:
        return number, at
    if 0x90 <= first < 0xA0 or first in (0xDC, 0xDD):
        items = []
        for _ in range(number if size else first & 15):
            item, at = unpack(data, at)
            items.append(item)
        return items, at
    if 0xA0 <= first < 0xC0 or first in sizes:
        end = at + (number if size else first & 31)
        if end > len(data):
            raise ValueError("cut off")
        return data[at:end] if 0xC4 <= first <= 0xC6 else data[at:end].decode(), end
    raise ValueError(f"byte {first:#x}")

def pack(value):
    """msgpack of integers, bytes, text and lists of them, each in its shortest form."""
    if isinstance(value, list):
        head = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + len(value).to_bytes(2, "big")
        return head + b"".join(map(pack, value))
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode()
    number = value if isinstance(value, int) else len(value)
    if isinstance(value, int) and number < 128:
        return bytes([number])
    size = 1 if number < 256 else 2 if number < 65536 else 4 if number < 2**32 else 8
    code = (0xCC if isinstance(value, int) else 0xC4) + (size.bit_length() - 1)
    return bytes([code]) + number.to_bytes(size, "big") + (b"" if isinstance(value, int) else value)

def quorum(members):
    """How many of so many: any two quorums share an honest member."""
    return (members + (members - 1) // 3) // 2 + 1

class Verifier:
    """The checks of one bundle; `found` has the statuses by check, PASS unless something was told."""

    def __init__(self, files):
        self.files, self.found = files, {}
        shown = json.loads(files["ledger/1.json"], object_hook=unhex)
        self.head, self.records, self.amendments = shown["head"], shown["records"], shown["amendments"]
        self.blocks = shown["proof"] or shown["unproven"] or {}
        self.identity = shown["identity"]
        place = self.identity["chain_id"].to_bytes(32, "big") + self.identity["contract"]
        self.federation = tagged("folkmoot/v1/federation", self.identity["charter_digest"] + place)
        domain = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
        names = b"".join(map(keccak, [domain, b"Folkmoot", b"1"]))
        self.domain = keccak(names + place[:32] + bytes(12) + place[32:])
        self.statements = {r["statement"]["round"]: list(r["statement"].values()) for r in self.records}

    def tell(self, check, holds, otherwise="FAIL"):
        """Note how a check came out; the worst counts."""
        statuses = "PASS" if holds else otherwise, self.found.get(check, "PASS")
        self.found[check] = max(statuses, key="PASS INCONCLUSIVE FAIL".index)
        return holds

    def signers(self, struct, signatures):
        """The addresses that signed a struct hash."""
        digest = keccak(b"\x19\x01" + self.domain + struct)
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
        rounds = [record["statement"]["round"] for record in self.records]
        self.tell("rounds", rounds == [*range(1, self.head["height"] + 1)])
        previous = model = None
        for record in self.records:
            values = record["statement"]
            _, config, able = next(span for span in reversed(spans) if span[0] <= values["round"])
            digest = struct_hash("Statement", values.values())
            self.tell("chain-id", values["federation"] == self.federation)
            before = previous or values["federation"]
            self.tell("hash-chain", (values["previous"], record["digest"]) == (before, digest))
            self.tell("bases", model in (None, values["base"]))
            self.tell("amendments", values["config"] == config)
            alone = record["signed"] == record["digest"]
            followed = any(one["digest"] == record["signed"] for one in self.records[values["round"] :][:31])
            signed = able & set(self.signers(digest if alone else record["signed"], record["signatures"]))
            self.tell("quorum", (alone or followed) and len(signed) >= quorum(len(able)))
            previous, model = digest, values["model"]
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
                blobs = [data for name, data in self.files.items() if name.endswith("/" + body[5].hex())]
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
        files = {name: bundle.read(name) for name in bundle.namelist()}
    for name, digest in json.loads(files["manifest.json"])["files"].items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            sys.exit(f"{name} is not what the manifest says")
    (verifier := Verifier(files)).check_ledger()
    if "charter/charter.toml" in files:
        verifier.check_archives()
    worst = next((status for status in ("FAIL", "INCONCLUSIVE") if status in verifier.found.values()), "PASS")
    print(json.dumps({"status": worst, "checks": verifier.found}, indent=1))
    return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[worst]

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except (OSError, IndexError, KeyError, TypeError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        sys.exit(print(f"usage: verify.py BUNDLE: no readable bundle: {error!r}", file=sys.stderr) or 2)
