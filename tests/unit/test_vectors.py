"""The committed vectors are what the code gives; change them only together with the protocol's version."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vectors", ROOT / "scripts" / "make_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.mark.parametrize("name", script.MAKERS)
def test_committed_vectors_are_what_the_code_gives(name: str) -> None:
    committed = json.loads((script.VECTORS / f"{name}.json").read_text())
    assert script.MAKERS[name]() == committed, "if this change is meant, run scripts/make_vectors.py"


def test_every_vector_file_has_a_maker() -> None:
    from_elsewhere = {"robust"}  # ByzFL's answers: scripts/make_robust_vectors.py
    assert {path.stem for path in script.VECTORS.glob("*.json")} == set(script.MAKERS) | from_elsewhere


def test_signatures_in_the_vectors_recover_to_the_signer() -> None:
    from eth_keys import keys

    vectors = json.loads((script.VECTORS / "typed_data.json").read_text())
    for struct in vectors["structs"]:
        compact = bytes.fromhex(struct["signature"])
        s = int.from_bytes(compact[32:], "big")
        parity, s = s >> 255, s & (1 << 255) - 1
        signature = keys.Signature(vrs=(parity, int.from_bytes(compact[:32], "big"), s))
        public = signature.recover_public_key_from_msg_hash(bytes.fromhex(struct["signing_digest"]))
        assert public.to_canonical_address().hex() == vectors["signer"]
        assert s <= 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # low s, EIP-2
