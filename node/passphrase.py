"""Where the passphrase of a node's keystores comes from."""

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from folkmoot.node.keys import KeysError, write_secret_file

FILE_VARIABLE = "FOLKMOOT_PASSPHRASE_FILE"
VARIABLE = "FOLKMOOT_PASSPHRASE"


def read_passphrase(environment: Mapping[str, str], *, confirm: bool = False) -> str:
    """The passphrase: from the file that FOLKMOOT_PASSPHRASE_FILE names, from FOLKMOOT_PASSPHRASE, or asked
    for.

    `confirm` asks twice (for new keys). Raises `KeysError` if it is empty, unreadable or there is nobody to
    ask.
    """
    if name := environment.get(FILE_VARIABLE):
        passphrase, source = _from_file(Path(name)), name
    elif VARIABLE in environment:
        passphrase, source = environment[VARIABLE], VARIABLE
    elif sys.stdin.isatty():
        import click

        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
        source = "prompt"
    else:
        raise KeysError(f"no passphrase: set {FILE_VARIABLE} to a file that holds it (or {VARIABLE})")
    if not passphrase:
        raise KeysError(f"{source}: the passphrase is empty: the keys need one")
    return passphrase


def create_passphrase_file(path: Path) -> str:
    """Write a random passphrase to a new file of mode 0600 and return it (testnets); raises `KeysError`."""
    passphrase = secrets.token_urlsafe(24)
    try:
        write_secret_file(path, passphrase + "\n")
    except OSError as error:
        raise KeysError(f"{path}: the passphrase file cannot be written: {error.strerror}") from error
    return passphrase


def _from_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"{path} (named by {FILE_VARIABLE}): cannot be read: {error}") from error
