"""The house rules on imports: who may use whom, and where each heavy dependency lives."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ROOTS = {
    "protocol": REPO / "protocol",
    "ledger": REPO / "ledger",
    "node": REPO / "node",
    "testnet": REPO / "scripts" / "testnet",
}
ORDER = list(ROOTS)  # each may import itself and what stands before it

# The only places for each heavy dependency: files or folders, relative to the repository.
HOMES = {
    "torch": ("node/train/",),
    "opacus": ("node/train/",),
    "dp_accounting": ("ledger/audit/accountant.py",),
    "matplotlib": ("node/report/",),
    "libp2p": ("node/network/",),
    "multiaddr": ("node/network/",),
    "zeroconf": ("node/network/mdns.py",),
    "ifaddr": ("node/network/mdns.py",),
    "web3": ("ledger/evm.py", "scripts/testnet/devchain.py"),
    "eth_tester": ("scripts/testnet/devchain.py",),
    "eth": ("scripts/testnet/devchain.py",),
    "sklearn": ("scripts/testnet/",),
    "duckdb": ("node/data/source.py",),
    "trio": ("node/", "scripts/testnet/"),
    "rich": ("node/cli/", "ledger/", "scripts/testnet/"),
}
# Deserialisers that run code from their input, and compilers that no installed package may need.
BANNED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "vyper", "boa"}

PROTOCOL_MAY_USE = {"numpy", "nacl", "cryptography", "msgspec", "Crypto", "folkmoot"}
# The standard library's doors to files, clocks, randomness, the network and other threads.
PROTOCOL_MUST_NOT_USE = {
    "asyncio", "datetime", "glob", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "secrets",
    "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip


def python_files(*names: str) -> list[Path]:
    return sorted(path for name in names or ROOTS for path in ROOTS[name].rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The line and dotted name of every import in the file, also those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # "from folkmoot import node" names a package too, so each name counts as part of the path.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(REPO)}:{line}"


def test_each_package_imports_only_those_before_it() -> None:
    wrong = [
        f"{where(path, line)} imports {name}"
        for own in ORDER
        for path in python_files(own)
        for line, name in imports(path)
        if name.startswith("folkmoot.") and name.split(".")[1] not in ORDER[: ORDER.index(own) + 1]
    ]
    assert not wrong, "\n".join(wrong)


def test_each_heavy_dependency_stays_in_its_place() -> None:
    wrong = [
        f"{where(path, line)} imports {name}; its place is {HOMES[name.split('.')[0]]}"
        for path in python_files()
        for line, name in imports(path)
        if name.split(".")[0] in HOMES
        and not path.relative_to(REPO).as_posix().startswith(HOMES[name.split(".")[0]])
    ]
    assert not wrong, "\n".join(wrong)


def test_libp2p_is_imported_only_by_the_files_named_after_it() -> None:
    wrong = [
        where(path, line)
        for path in python_files("node")
        for line, name in imports(path)
        if name.split(".")[0] == "libp2p" and not path.name.startswith("libp2p_")
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_pickle_or_a_compiler() -> None:
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in python_files()
        for line, name in imports(path)
        if name.split(".")[0] in BANNED
    ]
    assert not wrong, "\n".join(wrong)


def test_protocol_uses_only_pure_dependencies() -> None:
    allowed = (PROTOCOL_MAY_USE | sys.stdlib_module_names) - PROTOCOL_MUST_NOT_USE
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in python_files("protocol")
        for line, name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_protocol_takes_keccak_from_one_file() -> None:
    users = {
        path for path in python_files("protocol") for _, name in imports(path) if name.startswith("Crypto.")
    }
    assert len(users) <= 1, sorted(users)


def test_protocol_opens_no_files_and_draws_no_numbers() -> None:
    wrong = [
        where(path, node.lineno)
        for path in python_files("protocol")
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "input")
        )
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in ("np.random", "numpy.random"))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_folder_with_python_files_is_packaged() -> None:
    settings = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(("folkmoot", name, *path.parent.relative_to(ROOTS[name]).parts))
        for name in ROOTS
        for path in python_files(name)
    }
    assert sorted(settings["packages"]) == sorted(found)


def test_every_package_is_a_regular_one() -> None:
    bare = {path.parent for path in python_files() if not (path.parent / "__init__.py").exists()}
    assert not bare, sorted(bare)
    assert not (REPO / ".typing" / "folkmoot" / "__init__.py").exists()


@pytest.mark.parametrize("name", ROOTS)
def test_links_for_type_checkers_point_at_the_roots(name: str) -> None:
    assert (REPO / ".typing" / "folkmoot" / name).resolve() == ROOTS[name]


def test_auditors_install_imports_every_ledger_and_protocol_module() -> None:
    """None of the other extras is there: their top-level modules are made unimportable first."""
    names = [
        ".".join(("folkmoot", name, *path.relative_to(ROOTS[name]).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for name in ("protocol", "ledger")
        for path in python_files(name)
    ]
    script = f"""
import importlib, sys
for absent in (
    "torch", "opacus", "dp_accounting", "duckdb", "libp2p", "trio", "multiaddr", "eth_tester", "eth", "sklearn",
    "vyper", "boa",
):
    sys.modules[absent] = None
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
