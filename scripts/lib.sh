# shellcheck shell=bash
# Shared by the scripts of this folder: the checkout's root, and its environment.
# Source it; it defines ROOT and bootstrap, and installs nothing by itself.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }

die() {
    printf 'Error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

# Prints the path of the first Python that is new enough and can make environments; PYTHON overrides the search.
# 3.11 stands first because the pinned set is tested on it.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    die "no usable Python 3.11 or newer was found (tried: ${PYTHON:-python3.11 python3.12 python3.13 python3})." \
        "Install one with its venv module (Debian, Ubuntu: apt-get install python3 python3-venv)," \
        "or name it: PYTHON=/path/to/python3.11 $0"
}

# What an install depends on: the pins, the project file, the interpreter, and where the checkout lies.
install_key() {
    {
        cat "$ROOT/pyproject.toml" "$ROOT/scripts/constraints.txt"
        "$VENV/bin/python" -VV
        printf '%s\n' "$ROOT"
    } | cksum
}

# libp2p needs fastecdsa, which has no wheel: say so before minutes of downloading end in a compiler error.
warn_if_no_compiler() {
    "$VENV/bin/python" -c 'import fastecdsa' 2>/dev/null && return
    printf '#include <gmp.h>\n#include <Python.h>\n' |
        cc -fsyntax-only -I"$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
            -xc - 2>/dev/null && return
    say "Warning: no C compiler with the headers of GMP and Python was found; fastecdsa (for libp2p) is built with them."
    say "If the install fails: apt-get install gcc libgmp-dev python3-dev, or your system's equivalent."
}

# bootstrap EXTRAS: makes .venv and installs the checkout, editable, with EXTRAS (comma-separated) at the pinned
# versions. Does nothing when that was done before and neither the pins nor pyproject.toml changed since.
bootstrap() {
    local extras="$1" extra done_key python
    [ -L "$ROOT/.typing/folkmoot/node" ] || die ".typing/folkmoot/node is not a symbolic link." \
        "The checkout needs links: on Windows, clone inside WSL."
    # Making it anew would empty another checkout's.
    [ ! -L "$VENV" ] || die ".venv is a symbolic link; every checkout has its own: remove the link."
    # The second test finds an environment that was moved: its commands name the place where it was made.
    if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null || ! grep -qsF "$VENV/bin/python" "$VENV/bin/pip"; then
        python="$(find_python)"
        say "Making .venv with $python"
        "$python" -m venv --clear "$VENV"
    fi
    done_key="$(install_key)"
    for extra in ${extras//,/ }; do
        if [ "$(cat "$VENV/.installed-$extra" 2>/dev/null)" != "$done_key" ]; then
            install_pinned "$extras"
            break
        fi
    done
    for extra in ${extras//,/ }; do printf '%s\n' "$done_key" >"$VENV/.installed-$extra"; done
}

install_pinned() {
    say "Installing folkmoot[$1] into .venv, pinned by scripts/constraints.txt (minutes, the first time)"
    warn_if_no_compiler
    rm -f "$VENV"/.installed-*
    install_cpu_torch
    "$VENV/bin/python" -m pip install --disable-pip-version-check \
        -c "$ROOT/scripts/constraints.txt" -e "$ROOT[$1]" ||
        die "the install failed; pip's own message is above." \
            "A compiler error about gmp.h or Python.h: apt-get install gcc libgmp-dev python3-dev." \
            "A network error: run this script again, what was downloaded is kept."
    link_inline_types
}

# The package index's torch brings gigabytes of CUDA. Without an NVIDIA driver take PyTorch's own CPU build, if its
# index can be reached; if not, pip's next step takes what it finds.
install_cpu_torch() {
    command -v nvidia-smi >/dev/null && return
    "$VENV/bin/python" -m pip show -q torch 2>/dev/null && return
    say "No NVIDIA driver here: installing the CPU build of torch"
    "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --retries 1 \
        --index-url https://download.pytorch.org/whl/cpu -c "$ROOT/scripts/constraints.txt" torch ||
        say "PyTorch's index cannot be reached: taking the package index's torch, which is large"
}

# A real Ethereum node for the ledger's tests, under .tools/. Nobody needs npm for anything else, so a machine without it
# tests on the embedded chain alone; continuous integration has to have it.
ANVIL_VERSION=1.7.1
install_anvil() {
    local installed="$ROOT/.tools/node_modules/@foundry-rs/anvil/package.json" problem
    grep -qsF "\"version\": \"$ANVIL_VERSION\"" "$installed" && return
    problem="npm was not found"
    if command -v npm >/dev/null; then
        say "Installing anvil $ANVIL_VERSION under .tools/"
        # The platform's program is a package of its own: no install script has to run.
        npm install --ignore-scripts --no-audit --no-fund --no-save --loglevel=error \
            --prefix "$ROOT/.tools" "@foundry-rs/anvil@$ANVIL_VERSION" >&2 && return
        problem="npm could not install @foundry-rs/anvil@$ANVIL_VERSION"
    fi
    [ "${CI:-}" != true ] || die "$problem; continuous integration tests the ledger on anvil too."
    say "WARNING: $problem: THE LEDGER'S TESTS ON ANVIL WILL BE SKIPPED"
}

# trio-typing, which libp2p needs, brings stubs of an old trio, and type checkers prefer stubs to the types that trio
# ships. Links in .venv/typing, which stand on mypy's path, put trio's own first.
link_inline_types() {
    local site package
    site="$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    mkdir -p "$VENV/typing"
    for package in trio outcome; do ln -sfn "$site/$package" "$VENV/typing/$package"; done
}
