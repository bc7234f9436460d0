"""Builds the wheel, installs it alone in a clean environment, and runs its command there.

An editable install finds files that the wheel forgot, so only this shows what a user would get. The build runs on a
copy of the files git knows (or would add), because setuptools also packs what an earlier build left in build/.
The dependencies are lent by the environment this runs in, through a path file: that takes seconds, and path files of
the lent folder (the editable install's) are not read, so folkmoot itself can only come from the wheel.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = {".py", ".vy", ".json", ".typed"}


def main() -> None:
    """Runs the check; exits with a message when the wheel is not what it should be."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    with tempfile.TemporaryDirectory(prefix="folkmoot-wheel-") as scratch:
        source, outside = Path(scratch, "source"), Path(scratch, "outside")
        outside.mkdir()
        files = _copy_checkout(source)
        wheel = _build(source, Path(scratch, "dist"))
        _check_complete(wheel, files, settings["package-dir"])
        python = _install(wheel, Path(scratch, "clean"))
        _check_origin(python, settings["packages"], outside)
        for option in ("--version", "--help"):
            _run([str(python.with_name("folkmoot")), option], cwd=outside)
    print(f"{wheel.name}: complete, imports and runs on its own")


def _copy_checkout(target: Path) -> list[Path]:
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    files = [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, target / file)
    return files


def _build(source: Path, target: Path) -> Path:
    # Without isolation: the pinned setuptools of this environment, and no network.
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(target),
        str(source),
    ]
    _run(command, cwd=source)
    return next(target.glob("folkmoot-*.whl"))


def _check_complete(wheel: Path, files: list[Path], package_dir: dict[str, str]) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        "/".join((*package.split("."), *file.relative_to(folder).parts))
        for package, folder in package_dir.items()
        for file in files
        if file.is_relative_to(folder) and file.suffix in PACKAGED
    }
    if missing := sorted(wanted - packed):
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}: list the package or its data in pyproject.toml")


def _install(wheel: Path, target: Path) -> Path:
    """Makes the environment, installs the wheel alone, and returns the environment's Python."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(target)], cwd=target.parent)
    python = target / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    _run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], cwd=target.parent)
    site = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=target)
    Path(site.strip(), "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _check_origin(python: Path, packages: list[str], cwd: Path) -> None:
    """Imports every package and fails if one does not come from the clean environment."""
    code = f"import {', '.join(packages)}\nfor name in {packages!r}: print(eval(name).__file__)"
    site = python.parent.parent.resolve()
    for line in _run([str(python), "-c", code], cwd=cwd).splitlines():
        if not Path(line).resolve().is_relative_to(site):
            sys.exit(f"the clean environment imported {line}, which is not the wheel's")


def _run(command: list[str], *, cwd: Path) -> str:
    """The command's output; on failure both its streams are shown and the check ends."""
    # Without PYTHONPATH, which would let the checkout's own files in.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
