"""Keys: four of them, for the owner only, never shown, and unlocked by one passphrase."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from nacl.signing import SigningKey

from folkmoot.node import keys
from folkmoot.node.keys import KeysError, create_keys, load_keys, peer_id, public_keys, unlock
from folkmoot.node.passphrase import create_passphrase_file, read_passphrase

PASSPHRASE = "correct horse 𝄞"

# Web3 Secret Storage, version 3, test vector "scrypt" of the Ethereum wiki (n = 2^18: a real one).
VECTOR = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "r": 1,
            "p": 8,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}
VECTOR_PASSPHRASE = "testpassword"
VECTOR_SECRET = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("home") / "keys"
    create_keys(directory, PASSPHRASE, cheap=True)
    return directory


def write_vector(path: Path) -> None:
    keys.write_secret_file(path, json.dumps(VECTOR))


def test_keys_come_back_with_their_passphrase(made: Path) -> None:
    loaded = load_keys(made, PASSPHRASE)
    public = public_keys(made)
    assert bytes(loaded.identity.verify_key).hex() == public.identity_key
    assert bytes(loaded.sealing.public_key).hex() == public.sealing_key
    assert loaded.peer_id == public.peer_id
    assert len(loaded.audit) == len(loaded.gas) == 32
    assert len({bytes(loaded.identity), bytes(loaded.sealing), loaded.audit, loaded.gas}) == 4


def test_the_addresses_are_those_of_the_secrets(made: Path) -> None:
    from eth_keys.datatypes import PrivateKey

    loaded, public = load_keys(made, PASSPHRASE), public_keys(made)
    assert PrivateKey(loaded.audit).public_key.to_address() == public.audit_key
    assert PrivateKey(loaded.gas).public_key.to_address() == public.gas_key


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(5))
def test_the_peer_id_is_the_one_libp2p_gives(seed: int) -> None:
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    secret = bytes([seed]) * 32
    expected = ID.from_pubkey(create_new_key_pair(secret).public_key)
    assert peer_id(bytes(SigningKey(secret).verify_key)) == str(expected)


def test_the_repr_shows_no_secret(made: Path) -> None:
    loaded = load_keys(made, PASSPHRASE)
    assert repr(loaded) == f"NodeKeys({loaded.peer_id}, secrets not shown)"
    assert repr(loaded) == str(loaded)


def test_only_the_owner_can_read_them(made: Path) -> None:
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {0o600}


@pytest.mark.parametrize("name", keys.FILES)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_reach_is_refused(made: Path, name: str, mode: int) -> None:
    (made / name).chmod(mode)
    try:
        with pytest.raises(KeysError, match=rf"{name}: other users.*mode 0{mode:o}.*chmod 600"):
            load_keys(made, PASSPHRASE)
    finally:
        (made / name).chmod(0o600)


def test_a_wrong_passphrase_is_named_as_such(made: Path) -> None:
    with pytest.raises(KeysError, match=r"audit\.json: wrong passphrase"):
        load_keys(made, "incorrect horse")


def test_keys_are_never_overwritten(made: Path) -> None:
    before = public_keys(made)
    with pytest.raises(KeysError, match=r"identity\.key: exists already"):
        create_keys(made, PASSPHRASE, cheap=True)
    assert public_keys(made) == before


@pytest.mark.parametrize("name", keys.FILES)
@pytest.mark.parametrize("text", ["", "not hex", "ab" * 31, "{}", '{"crypto": {"kdf": "scrypt"}}', "[]"])
def test_a_damaged_key_is_named_and_not_quoted(tmp_path: Path, made: Path, name: str, text: str) -> None:
    for other in keys.FILES:
        keys.write_secret_file(tmp_path / other, text if other == name else (made / other).read_text())
    with pytest.raises(KeysError, match=rf"{name}: .*restore it") as caught:
        load_keys(tmp_path, PASSPHRASE)
    assert "ababab" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"identity\.key: no such key"):
        load_keys(tmp_path, PASSPHRASE)


def test_a_real_keystore_is_unlocked_in_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("unlocked in this process")

    monkeypatch.setattr(keys, "_decrypt", refuse)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    path = tmp_path / "audit.json"
    write_vector(path)
    assert unlock([path], VECTOR_PASSPHRASE) == [bytes.fromhex(VECTOR_SECRET)]
    with pytest.raises(KeysError, match=r"audit\.json: wrong passphrase$"):
        unlock([path], "testpasswort")


def test_the_child_takes_nothing_but_unlock() -> None:
    command = [sys.executable, "-m", "folkmoot.node.keys", "print"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.run(command, env=environment, capture_output=True, input=b"")
    assert child.returncode == 64
    assert b"usage" in child.stderr


def test_the_passphrase_comes_from_the_file_before_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(" with spaces \n")
    variables = {"FOLKMOOT_PASSPHRASE": "variable", "FOLKMOOT_PASSPHRASE_FILE": str(file)}
    assert read_passphrase(variables) == " with spaces "
    del variables["FOLKMOOT_PASSPHRASE_FILE"]
    assert read_passphrase(variables) == "variable"


def test_without_a_passphrase_it_says_where_to_put_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    with sys.stdin, pytest.raises(KeysError, match="set FOLKMOOT_PASSPHRASE_FILE"):
        read_passphrase({})
    with pytest.raises(KeysError, match=r"gone \(named by FOLKMOOT_PASSPHRASE_FILE\)"):
        read_passphrase({"FOLKMOOT_PASSPHRASE_FILE": str(tmp_path / "gone")})
    with pytest.raises(KeysError, match="FOLKMOOT_PASSPHRASE: the passphrase is empty"):
        read_passphrase({"FOLKMOOT_PASSPHRASE": ""})


def test_a_passphrase_file_is_random_and_private(tmp_path: Path) -> None:
    first = create_passphrase_file(tmp_path / "one")
    assert first != create_passphrase_file(tmp_path / "two")
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600
    assert read_passphrase({"FOLKMOOT_PASSPHRASE_FILE": str(tmp_path / "one")}) == first
    with pytest.raises(KeysError, match="File exists"):
        create_passphrase_file(tmp_path / "one")
