"""A node's secret keys, in HOME/keys (directory 0700, files 0600).

`identity.key` (Ed25519 seed: libp2p peer id, charter and protocol signatures) and `sealing.key` (X25519:
content keys are sealed to it) are hex; the daemon needs them unattended. `audit.json` and `gas.json`
(secp256k1: attestations, fees) are Ethereum keystores (V3, scrypt) under one passphrase. scrypt at its real
strength takes 1 s and 300 MB, so real ones are unlocked in a short child process (`python -m
folkmoot.node.keys unlock`), and the daemon stays small.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import base58
import msgspec
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import FolkmootError

IDENTITY = "identity.key"
SEALING = "sealing.key"
AUDIT = "audit.json"
GAS = "gas.json"
FILES = (IDENTITY, SEALING, AUDIT, GAS)
ROTATED = (IDENTITY, SEALING, AUDIT)
"""The keys that the charter names; the gas key is nobody else's business, and stays."""
CHARTERED = ("peer_id", "identity_key", "sealing_key", "audit_key")
"""What of `PublicKeys` stands in the charter."""

REAL_SCRYPT = 1 << 18
CHEAP_SCRYPT = 1 << 14
"""scrypt's n: the keystores' default, and that of a testnet's throw-away keys (unlocked in-process)."""

_SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_UNLOCK_SECONDS = 120
_REFUSED = 3  # exit status of the unlocking child when keystore or passphrase is at fault
# Multihash "identity" (0x00) of 36 bytes of protobuf: PublicKey {type: Ed25519 (1), data: 32 bytes}.
# Source: the libp2p peer-ids specification.
_PEER_ID_PREFIX = bytes.fromhex("002408011220")


class KeysError(FolkmootError):
    """Keys missing, damaged or readable by others, or a wrong passphrase; the message says what to do."""

    exit_code = 2


class PublicKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The public halves, as the charter writes them: lower-case hex (but the peer id), addresses with 0x."""

    peer_id: str
    identity_key: str
    sealing_key: str
    audit_key: str
    """Address of the audit key."""
    gas_key: str
    """Address that pays for transactions: for the operator to fund, not in the charter."""


class NodeKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The unlocked keys. Its repr shows none of them."""

    identity: SigningKey
    sealing: PrivateKey
    audit: bytes
    """secp256k1 secret, 32 bytes."""
    gas: bytes
    """secp256k1 secret, 32 bytes."""

    @property
    def peer_id(self) -> str:
        """The libp2p peer id of the identity key."""
        return peer_id(bytes(self.identity.verify_key))

    def __repr__(self) -> str:
        return f"NodeKeys({self.peer_id}, secrets not shown)"


def peer_id(public_key: bytes) -> str:
    """The libp2p peer id (base58) of an Ed25519 public key of 32 bytes."""
    return base58.b58encode(_PEER_ID_PREFIX + public_key).decode("ascii")


def create_keys(directory: Path, passphrase: str, *, cheap: bool = False) -> PublicKeys:
    """Make all four keys in `directory` (a home's `keys`) and give their public halves.

    `cheap` weakens the passphrase's protection (n = 2^14) and is for testnets only. Raises `KeysError` if any
    key is there already: keys are never overwritten.
    """
    work = CHEAP_SCRYPT if cheap else REAL_SCRYPT
    _write_keys(directory, {name: _new_key(name, passphrase, work) for name in FILES})
    return public_keys(directory)


def rotate_keys(directory: Path, newest: Path, names: Collection[str], passphrase: str) -> Path:
    """Make new keys of these `names` in a new folder of `directory` (`keys/2`, `keys/3`, ...), which it returns.

    The others of the keys that the charter names are copied from `newest`, the folder in use, so that a folder has them
    all; the gas key stays where it is. Raises `KeysError`.
    """
    work = CHEAP_SCRYPT if _is_cheap(_keystore(newest / AUDIT)) else REAL_SCRYPT
    unlock([newest / AUDIT], passphrase)  # one passphrase opens them all
    contents = {
        name: _new_key(name, passphrase, work) if name in names else _read_secret_file(newest / name).strip()
        for name in ROTATED
    }
    folder = directory / str(len(key_folders(directory)) + 1)
    _write_keys(folder, contents)
    return folder


def key_folders(directory: Path) -> list[Path]:
    """Where keys lie, oldest first: `directory` itself (a home's `keys`), then one folder for each rotation."""
    numbered = sorted(int(path.name) for path in directory.glob("[0-9]*") if path.name.isdigit())
    return [directory, *(directory / str(number) for number in numbered)]


def folder_of(directory: Path, member: Member) -> Path:
    """The folder with the keys that a charter names for `member`, of a home's `keys`; raises `KeysError`."""
    differing: list[str] = []
    for folder in reversed(key_folders(directory)):
        public = public_keys(folder, directory)
        differing = [what for what in CHARTERED if getattr(public, what) != getattr(member, what)]
        if not differing:
            return folder
    raise KeysError(
        f"{directory}: the {differing[0]} is not the one that the charter names for {member.name}; use the keys that "
        "were made for this federation"
    )


def chartered(folder: Path, member: Member) -> Member:
    """A charter's entry for `member` with the keys in one of its folders; raises `KeysError`."""
    public = public_keys(folder, folder if (folder / GAS).exists() else folder.parent)
    return msgspec.structs.replace(member, **{what: getattr(public, what) for what in CHARTERED})


def load_keys(directory: Path, passphrase: str, folder: Path | None = None) -> NodeKeys:
    """Read and unlock the keys in `directory`; all but the gas key from `folder`, if it is given.

    Raises `KeysError` for a missing, damaged or too widely readable file and for a wrong passphrase.
    """
    chosen = folder or directory
    identity, sealing = (_plain_key(chosen / name) for name in (IDENTITY, SEALING))
    audit, gas = unlock([chosen / AUDIT, directory / GAS], passphrase)
    return NodeKeys(identity=SigningKey(identity), sealing=PrivateKey(sealing), audit=audit, gas=gas)


def load_identity(directory: Path, member: Member) -> SigningKey:
    """The identity key that a charter names for `member`, which needs no passphrase. Raises `KeysError`."""
    for folder in key_folders(directory):
        key = SigningKey(_plain_key(folder / IDENTITY))
        if bytes(key.verify_key).hex() == member.identity_key:
            return key
    raise KeysError(f"{directory}: holds no identity key that the charter names for {member.name}")


def public_keys(directory: Path, gas_directory: Path | None = None) -> PublicKeys:
    """The public halves of the keys in `directory` (a rotated folder has no gas key: `gas_directory` has it).

    Needs no passphrase. Raises `KeysError`.
    """
    identity = bytes(SigningKey(_plain_key(directory / IDENTITY)).verify_key)
    sealing = bytes(PrivateKey(_plain_key(directory / SEALING)).public_key)
    audit, gas = _address(directory / AUDIT), _address((gas_directory or directory) / GAS)
    return PublicKeys(
        peer_id=peer_id(identity),
        identity_key=identity.hex(),
        sealing_key=sealing.hex(),
        audit_key=audit,
        gas_key=gas,
    )


def unlock(keystores: Sequence[Path], passphrase: str) -> list[bytes]:
    """The secrets (32 bytes each) in V3 `keystores` of one passphrase; in a child if one is costly."""
    if all(_is_cheap(_keystore(path)) for path in keystores):
        return [_decrypt(path, passphrase) for path in keystores]
    return _unlock_in_child(keystores, passphrase)


def write_secret_file(path: Path, text: str) -> None:
    """Write `text` to a new file of mode 0600, durably; raises `OSError`, also if the file exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _new_key(name: str, passphrase: str, work: int) -> str:
    """What the file of a new key holds."""
    if name == IDENTITY:
        return bytes(SigningKey.generate()).hex()
    if name == SEALING:
        return bytes(PrivateKey.generate()).hex()
    return _encrypt(_secp256k1_secret(), passphrase, work)


def _write_keys(directory: Path, contents: Mapping[str, str]) -> None:
    for name in contents:
        if (directory / name).exists():
            raise KeysError(
                f"{directory / name}: exists already: keys are never overwritten; remove them by hand"
            )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        for name, text in contents.items():
            write_secret_file(directory / name, text + "\n")
    except OSError as error:
        raise KeysError(f"{directory}: keys cannot be written: {error.strerror}") from error


def _secp256k1_secret() -> bytes:
    return (secrets.randbelow(_SECP256K1_ORDER - 1) + 1).to_bytes(32, "big")


def _read_secret_file(path: Path) -> str:
    """The text of a file that only its owner can read; raises `KeysError`."""
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise KeysError(
                    f"{path}: other users can read this key (mode {mode:04o}): run 'chmod 600 {path}'"
                )
            return file.read()
    except FileNotFoundError as error:
        raise KeysError(
            f"{path}: no such key: restore it from a backup of this home. If there is none, the member has to be "
            "admitted again with new keys: see 'Keys' in the operator's guide. Only a member that no charter names yet "
            "may simply make another home with 'folkmoot init'"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"{path}: cannot be read: {error}") from error


def _plain_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(_read_secret_file(path))
    except ValueError:
        key = b""
    if len(key) != 32:
        # No "from": the chained error would quote the key's text.
        raise KeysError(f"{path}: not 32 bytes in hex: the key is damaged, restore it from a copy")
    return key


def _keystore(path: Path) -> dict[str, Any]:
    try:
        keystore = json.loads(_read_secret_file(path))
    except ValueError as error:
        raise KeysError(f"{path}: not a keystore (JSON): restore it from a copy") from error
    if not isinstance(keystore, dict) or not isinstance(keystore.get("crypto"), dict):
        raise KeysError(f"{path}: not a V3 keystore: restore it from a copy")
    return keystore


def _address(path: Path) -> str:
    address = str(_keystore(path).get("address", "")).lower().removeprefix("0x")
    if len(address) != 40:
        raise KeysError(f"{path}: the keystore names no address: restore it from a copy")
    return f"0x{address}"


def _is_cheap(keystore: dict[str, Any]) -> bool:
    work = keystore["crypto"].get("kdfparams", {}).get("n", 0)
    return isinstance(work, int) and work <= CHEAP_SCRYPT


def _encrypt(secret: bytes, passphrase: str, work: int) -> str:
    from eth_keyfile.keyfile import create_keyfile_json  # 0.5 s; free in the daemon, where web3 has loaded it

    return json.dumps(create_keyfile_json(secret, passphrase.encode(), kdf="scrypt", iterations=work))


def _decrypt(path: Path, passphrase: str) -> bytes:
    from eth_keyfile.exceptions import EthKeyfileValueError
    from eth_keyfile.keyfile import decode_keyfile_json  # see _encrypt

    try:
        secret: bytes = decode_keyfile_json(_keystore(path), passphrase.encode())
    except EthKeyfileValueError as error:
        raise KeysError(f"{path}: wrong passphrase") from error
    except (KeyError, TypeError, ValueError) as error:
        raise KeysError(f"{path}: not a V3 keystore: restore it from a copy") from error
    if len(secret) != 32:
        raise KeysError(f"{path}: holds {len(secret)} bytes, expected 32: restore it from a copy")
    return secret


def _unlock_in_child(keystores: Sequence[Path], passphrase: str) -> list[bytes]:
    """Run this module: passphrase to its stdin, secrets in hex from its stdout, refusal from its stderr."""
    command = [sys.executable, "-m", "folkmoot.node.keys", "unlock", *map(str, keystores)]
    try:
        child = subprocess.run(
            command, input=passphrase.encode(), capture_output=True, timeout=_UNLOCK_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise KeysError(
            f"{keystores[0]}: not unlocked after {_UNLOCK_SECONDS} s: is the machine overloaded?"
        ) from error
    if child.returncode == _REFUSED:
        raise KeysError(child.stderr.decode(errors="replace").strip())
    if child.returncode != 0:
        raise KeysError(
            f"{keystores[0]}: the process that unlocks keys failed: {child.stderr[-500:].decode()}"
        )
    return [bytes.fromhex(line) for line in child.stdout.decode("ascii").split()]


def _main(arguments: Sequence[str]) -> int:
    """`python -m folkmoot.node.keys unlock KEYSTORE…`, for `_unlock_in_child` only."""
    if arguments[:1] != ["unlock"]:
        print("usage: python -m folkmoot.node.keys unlock KEYSTORE...", file=sys.stderr)
        return 64
    passphrase = sys.stdin.buffer.read().decode()
    try:
        secrets_in_hex = [_decrypt(Path(path), passphrase).hex() for path in arguments[1:]]
    except KeysError as error:
        print(error, file=sys.stderr)
        return _REFUSED
    print("\n".join(secrets_in_hex))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
