"""README.md and the other documents say what the program does, and their links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from folkmoot.protocol.addresses import decode_addresses, verify_addresses
from folkmoot.protocol.messages import Frame, decode_frame, encode

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SPEC = ROOT / "docs" / "SPEC.md"
PACKAGES = ("protocol", "ledger", "node", "scripts")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = load_script()


@pytest.mark.parametrize("path", script.DOCUMENTS, ids=lambda path: path.name)
def test_generated_parts_are_what_the_code_gives(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert script.fill(text) == text, "if this change is meant, run scripts/make_docs.py"


def test_every_generated_part_is_used_once() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in script.DOCUMENTS)
    used = re.findall(r"<!-- made by scripts/make_docs\.py: ([a-z-]+) -->", texts)
    assert sorted(used) == sorted(script.MAKERS)


def test_readme_shows_the_help_that_the_program_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "folkmoot.node.cli", "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"$ folkmoot --help\n{done.stdout}" in (ROOT / "README.md").read_text(encoding="utf-8")


def example_frames() -> Iterator[Frame]:
    """The frames of the specification's example bytes, read from its text."""
    text = SPEC.read_text(encoding="utf-8")
    for size, lines in re.findall(r"^frame, (\d+) bytes\n((?:  [0-9a-f]+\n)+)", text, re.MULTILINE):
        data = bytes.fromhex(lines)
        assert len(data) == int(size)
        frame = decode_frame(data)
        assert encode(frame) == data
        yield frame


def test_example_bytes_decode_and_every_kind_has_some() -> None:
    shown = {type(frame).__name__ for frame in example_frames()}
    shown |= {type(getattr(frame, "body", frame)).__name__ for frame in example_frames()}
    tagged = re.findall(r"^(\w+) += \[\"[a-z-]+\"", SPEC.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown | {"Addresses", "SignedAddresses"} == set(tagged)  # these are no frames


def test_the_example_of_addresses_is_signed() -> None:
    text = SPEC.read_text(encoding="utf-8")
    (lines,) = re.findall(r"^signed, \d+ bytes\n((?:  [0-9a-f]+\n)+)", text, re.MULTILINE)
    (federation,) = re.findall(r"^federation +([0-9a-f]{64})$", text, re.MULTILINE)
    verify_addresses(decode_addresses(bytes.fromhex(lines)), bytes.fromhex(federation))


def test_specification_names_every_type_line() -> None:
    code = "".join(path.read_text() for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))
    lines = set(re.findall(r'"folkmoot/v1/([a-z][a-z-]*)', code))
    listed = SPEC.read_text(encoding="utf-8").partition("**Type lines**")[2]
    assert lines and not {line for line in lines if f"`{line}`" not in listed}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(path: Path) -> set[str]:
    """The names that headings get on code hosts: lower case, punctuation dropped, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
