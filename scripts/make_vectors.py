"""Write tests/vectors/*.json: inputs and results by which another implementation, or an auditor, can check itself.

Everything is fixed, so a second run changes nothing; `tests/unit/test_vectors.py` holds the files to the code.
Bytes are lower-case hex, float32 values are given by their bits.
"""

import json
from collections.abc import Callable
from pathlib import Path

import coincurve
import msgspec
import numpy as np
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from folkmoot.protocol import merkle, ring, sealing, typed_data
from folkmoot.protocol.addresses import Addresses, SignedAddresses, addresses_preimage, sign_addresses
from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.certificates import archive_digest
from folkmoot.protocol.codec import VectorDecoder, codec_named, encode_vector
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import (
    Commitment,
    Fingerprint,
    Lock,
    Proposal,
    Statement,
    Sum,
    Vote,
    body_digest,
    encode,
)
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.signing import identity_preimage
from folkmoot.protocol.validation import omitted_digest
from folkmoot.testnet import sample_messages
from folkmoot.testnet.secure_vectors import mask_vectors, sum_vectors

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors"


def merkle_vectors() -> dict[str, object]:
    """Trees of 0 to 9 leaves over the bytes 0, 1, 2, ... and every audit path of the largest."""
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(9)]
    return {
        "leaf_hashes": [leaf.hex() for leaf in leaves],
        "roots": [merkle.root(leaves[:size]).hex() for size in range(10)],
        "proofs": [[entry.hex() for entry in merkle.inclusion_proof(leaves, index)] for index in range(9)],
    }


def typed_data_vectors() -> dict[str, object]:
    """One struct of each type, signed by the secp256k1 key 0x01...01 (EIP-2098 compact, RFC 6979 nonce)."""
    domain = typed_data.Domain(chain_id=31337, contract=bytes(range(1, 21)))
    federation, one, two = b"\xfe" * 32, b"\x01" * 32, b"\x02" * 32
    structs = [
        Statement(federation, 1, federation, b"\x03" * 32, b"\x04" * 32, one, two, b"\x05" * 32),
        Commitment(
            federation, 1, b"\x06" * 32, 3, b"\x07" * 32, 2**40, b"\x08" * 32, (one, two), (two,), (one,)
        ),
        Proposal(federation, 1, 2, one, b"\x09" * 32),
        Vote(federation, 1, 2, one),
        Lock(federation, 1, 2, one, two),
        Sum(federation, 1, one, 3, two, 2**33),
        Fingerprint(federation, 1, 2, one, two, bytes(range(32))),
        Amendment(federation, 1, federation, one, two, 2**20, 60, (b"\x0a" * 20 + bytes(11) + b"\x03",)),
    ]
    key = coincurve.PrivateKey(b"\x01" * 32)
    return {
        "chain_id": domain.chain_id,
        "contract": domain.contract.hex(),
        "domain_separator": typed_data.domain_separator(domain).hex(),
        "public_key": key.public_key.format(compressed=False).hex(),
        "signer": typed_data.keccak256(key.public_key.format(compressed=False)[1:])[-20:].hex(),
        "structs": [
            {
                "type": type_string,
                "fields": {
                    name: _plain_struct(value) for name, value in msgspec.structs.asdict(struct).items()
                },
                "struct_hash": typed_data.struct_hash(struct).hex(),
                "signing_digest": typed_data.signing_digest(domain, struct).hex(),
                "signature": _compact(key, typed_data.signing_digest(domain, struct)).hex(),
            }
            for type_string, struct in zip(typed_data.TYPES, structs, strict=True)
        ],
    }


def ring_vectors() -> dict[str, object]:
    """Three updates (ties, clipping, subnormals) through exponents, integers, exact sum, mean and FedAvg."""
    sizes, lower, upper = [4, 3, 2], -20, 4
    updates = [
        np.array([1, -1, 0.1, 2**-32, 3.5, 2**-33, -0.3, 0, 0], dtype=np.float32),
        np.array([0.25, 0.7, -0.7, 2**-149, 100, 2**-31, 3 * 2**-33, 1e-9, 0], dtype=np.float32),
        np.array([-0.5, 0.6, 0.3, -(2**-30), -4, 1, 2, -1e-9, 2**-60], dtype=np.float32),
    ]
    base = np.array([0, 1, -2, 0.125, 2**-140, -1, 1e6, 3e-7, 5], dtype=np.float32)
    weights = [ring.weight_of(examples, 65_535) for examples in (100, 250, 70_000)]
    layout, scales = ring.Layout(sizes), bytes([0, 2, 0xEC])  # exponents 0, 2, -20
    payloads = [
        _payload(member, weight, update)
        for member, (update, weight) in enumerate(zip(updates, weights, strict=True))
    ]
    result = aggregate(Method.plain("f32", sizes), scales, payloads, base)
    return {
        "sizes": sizes,
        "bounds": [lower, upper],
        "exponents": np.frombuffer(scales, dtype=np.int8).tolist(),
        "base": _bits(base),
        "members": [
            {
                "update": _bits(update),
                "own_exponents": ring.compute_exponents(update, layout, lower, upper).tolist(),
                "weight": weight,
                "integers": _integers(update, layout, scales),
            }
            for update, weight in zip(updates, weights, strict=True)
        ],
        "total_weight": result.divisor,
        "sums_digest": result.sums_digest.hex(),
        "model": _bits(result.model),
        "weights": [
            {"num_examples": examples, "cap": cap, "weight": ring.weight_of(examples, cap)}
            for examples, cap in [
                (7, 100),
                (101, 100),
                (500_000, 10**6),
                (1, 10**6),
                (3, 131_070),
                (5, 131_070),
            ]
        ],
    }


def codec_vectors() -> dict[str, object]:
    """One vector of four blocks in every codec: zeros, subnormals, the largest values; ties; and what is refused."""
    rng = np.random.default_rng(20)
    vector = np.zeros(3 * 64 + 17, dtype=np.float32)
    vector[:64] = rng.standard_normal(64)
    vector[128:136] = [2**-149, -(2**-149), 2**-126, 3 * 2**-134, -(2**-133), 2**-140, 0, -0.0]
    vector[192:209] = np.finfo(np.float32).max * np.linspace(-1, 1, 17)
    ties = np.array([7, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 6.5, 127 / 128], dtype=np.float32)
    sizes, exponents = [70, 139], bytes([2, 127])
    return {
        "vector": _bits(vector),
        "ties": _bits(ties),
        "sizes": sizes,
        "exponents": list(exponents),
        "codecs": [
            {
                "name": name,
                "vector": b"".join(encode_vector(codec_named(name), vector)).hex(),
                "ties": bytes(codec_named(name).encode(ties)).hex(),
                "integers": _decoded_integers(name, vector, sizes, exponents),
                "refused": [data.hex() for data in _refused(name)],
            }
            for name in ("f32", "bf16", "int8", "int4", "int2", "top3", "top1")
        ],
    }


def _decoded_integers(name: str, vector: ring.Float32s, sizes: list[int], exponents: bytes) -> list[int]:
    decoder = VectorDecoder(codec_named(name), encode_vector(codec_named(name), vector))
    values = np.empty(len(vector), dtype=np.float64)
    decoder.read(values)
    decoder.finish()
    ring.FixedPoint(ring.Layout(sizes), exponents).to_integers(values, 0, values)
    return [int(value) for value in values]


def _refused(name: str) -> list[bytes]:
    """Encodings of one value that every decoder refuses."""
    if name == "f32":
        return [
            b"",
            bytes(3),
            bytes(5),
            *(bytes.fromhex(bits) for bits in ("0000807f", "000080ff", "0100807f")),
        ]
    if name == "bf16":
        return [b"", bytes(1), bytes(3), *(bytes.fromhex(bits) for bits in ("807f", "80ff", "c07f"))]
    if name.startswith("top"):
        return _refused_of_the_largest()
    rest = {"int8": 63, "int4": 31, "int2": 15}[name]
    one, least, second = {
        "int8": ("01", "80", "0001"),
        "int4": ("01", "08", "10"),
        "int2": ("01", "02", "04"),
    }[name]
    blocks = [
        "803f" + second,  # the padding is not zero
        "803f" + least,  # the code below -top
        "0000" + one,  # a code under a scale of zero
        "0080",  # scale -0
        "80bf" + one,  # scale -1
        "807f" + one,  # an infinite scale
        "c07f" + one,  # scale NaN
    ]
    whole = [bytes.fromhex(block).ljust(2 + 1 + rest, b"\0") for block in blocks]
    fine = bytes.fromhex("803f" + one).ljust(2 + 1 + rest, b"\0")
    return [b"", fine[:-1], fine + b"\0", *whole]


def _refused_of_the_largest() -> list[bytes]:
    """Magnitudes 1 and 2, place 0, positive, the larger one would be 803f 0040 0004."""
    wrong = [
        "803f00400005",  # the padding is not zero
        "803f00400014",  # place 1 of one value
        "0040803f0004",  # the larger magnitude first
        "008000400004",  # magnitude -0
        "803f807f0004",  # an infinite magnitude
        "803fc07f0004",  # magnitude NaN
    ]
    return [b"", bytes(5), bytes(7), *map(bytes.fromhex, wrong)]


def sealing_vectors() -> dict[str, object]:
    """A payload of two recipients. The plaintext is the byte sequence 0, 1, ..., 250, 0, 1, ... of two frames."""
    context = sealing.PayloadContext(federation=b"\xfe" * 32, round=1, roster=b"\x06" * 32, sender=3)
    key, size = b"\x0c" * 32, sealing.FRAME + 16
    plaintext = bytes(i % 251 for i in range(size))
    secrets = [PrivateKey(bytes([mark]) * 32) for mark in (0x21, 0x22)]
    recipients = [bytes(secret.public_key) for secret in secrets]
    payload = b"".join(sealing.seal_payload(context, key, recipients, [plaintext], size))
    frames = payload[sealing.frames_offset(2) :]
    return {
        "federation": context.federation.hex(),
        "round": context.round,
        "roster": context.roster.hex(),
        "sender": context.sender,
        "associated_data": context.digest.hex(),
        "key": key.hex(),
        "key_commitment": sealing.key_commitment(context, key).hex(),
        "recipients": [
            {
                "secret": bytes(secret).hex(),
                "public": public.hex(),
                "sealed_key": sealing.seal_key(context, key, public).hex(),
            }
            for secret, public in zip(secrets, recipients, strict=True)
        ],
        "plaintext_size": size,
        "first_frame_tag": frames[sealing.FRAME : sealing.FRAME + sealing.TAG_SIZE].hex(),
        "last_frame": frames[sealing.FRAME + sealing.TAG_SIZE :].hex(),
        "payload_size": len(payload),
        "payload_chunk_leaf": merkle.leaf_hash(payload).hex(),
    }


def message_vectors() -> dict[str, object]:
    """Every frame in its wire form, and the digests by which messages name each other."""
    samples = sample_messages
    survivors, statement = samples.SURVIVORS, samples.STATEMENT
    return {
        "frames": [
            {"name": name, "frame": _plain_struct(frame), "bytes": encode(frame).hex()}
            for name, frame in samples.SAMPLES.items()
        ],
        "roster_digest": {"proposer": samples.PROPOSER, "digest": samples.ROSTER_DIGEST.hex()},
        "commitment_digests": [body_digest(one).hex() for one in samples.COMMITMENTS],
        "survivors_digest": survivors.digest.hex(),
        "omitted_digest": omitted_digest(samples.OMITTED).hex(),
        "archive_digest": archive_digest(survivors).hex(),
        "statement_digest": typed_data.struct_hash(statement).hex(),
        "identity_preimage": identity_preimage(samples.FEDERATION, samples.READIES[0]).hex(),
    }


def address_vectors() -> dict[str, object]:
    """What a member says of where it is, and what is to be refused: bytes, and for those a word on why."""
    federation, key = b"\xfe" * 32, SigningKey(b"\x01" * 32)
    identity, circuit = (
        bytes(key.verify_key),
        "/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit",
    )
    plain = Addresses(identity, 7, ("/ip4/192.0.2.7/tcp/4001", "/dns4/node.example.org/tcp/4001", circuit))
    signed = sign_addresses(key, federation, plain)

    def case(word: SignedAddresses, problem: str = "") -> dict[str, object]:
        return {"signed": _plain_struct(word), "bytes": encode(word).hex(), "problem": problem}

    def resigned(*addresses: str) -> SignedAddresses:
        return sign_addresses(key, federation, Addresses(identity, 1, addresses))

    return {
        "federation": federation.hex(),
        "identity_seed": bytes(key).hex(),
        "preimage": addresses_preimage(federation, plain).hex(),
        "cases": [
            case(signed),
            case(resigned()),
            case(msgspec.structs.replace(signed, signature=bytes(64)), "signature"),
            case(sign_addresses(key, bytes(32), plain), "another federation's"),
            case(resigned("/ip4/192.0.2.7/tcp/1", "/ip4/192.0.2.7/tcp/1"), "twice"),
            case(resigned("/ip4/0.0.0.0/tcp/4001"), "unspecified address"),
            case(resigned("/ip4/169.254.169.254/tcp/80"), "link-local address"),
            case(resigned("/ip4/192.0.2.7/tcp/0"), "port"),
            case(resigned(*(f"/ip4/192.0.2.7/tcp/{port}" for port in range(1, 10))), "nine addresses"),
        ],
    }


MAKERS: dict[str, Callable[[], dict[str, object]]] = {
    "merkle": merkle_vectors,
    "typed_data": typed_data_vectors,
    "ring": ring_vectors,
    "codec": codec_vectors,
    "sealing": sealing_vectors,
    "messages": message_vectors,
    "addresses": address_vectors,
    "secure_masks": mask_vectors,
    "secure_sums": sum_vectors,
}


def main() -> None:
    """Write every file anew."""
    VECTORS.mkdir(exist_ok=True)
    for name, make in MAKERS.items():
        path = VECTORS / f"{name}.json"
        path.write_text(json.dumps(make(), indent=1) + "\n")
        print(path)


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _plain_struct(value: object) -> object:
    """A struct with the names of its fields, for people and for parsers of other languages."""
    if isinstance(value, msgspec.Struct):
        fields = {name: _plain_struct(field) for name, field in msgspec.structs.asdict(value).items()}
        return {"struct": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [_plain_struct(item) for item in value]
    return _plain(value)


def _payload(member: int, weight: int, update: ring.Float32s) -> Payload:
    return Payload(member, weight, lambda: [update.tobytes()])


def _bits(values: ring.Float32s) -> list[str]:
    return [f"{int(bits):08x}" for bits in values.view(np.uint32)]


def _integers(update: ring.Float32s, layout: ring.Layout, exponents: bytes) -> list[int]:
    integers = update.astype(np.float64)
    ring.FixedPoint(layout, exponents).to_integers(integers, 0, integers)
    return [int(value) for value in integers]


def _compact(key: coincurve.PrivateKey, digest: bytes) -> bytes:
    """EIP-2098: r, then s with the parity of y in its top bit."""
    signature = key.sign_recoverable(digest, hasher=None)
    return signature[:32] + bytes([signature[32] | signature[64] << 7]) + signature[33:64]


if __name__ == "__main__":
    main()
