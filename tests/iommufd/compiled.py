# SPDX-License-Identifier: Apache-2.0
"""What the C compiler makes of the kernel's headers, and what is declared in Python, in one form: {name: number}.

`sizeof(iommu_destroy)`, `iommu_destroy.id` (offset), `iommu_destroy.id:size`, and constants by their names. The headers
are those of a kernel source tree (the folder IOMMUCTL_KERNEL_HEADERS, or one in /usr/src), or what is installed.
"""

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

VARIABLE = "IOMMUCTL_KERNEL_HEADERS"
DECLARED = (7, 3)
"""The kernel whose interface is declared; older headers do not have all of it."""


def release(path: Path) -> list[int]:
    """The numbers in a folder's name, so that 6.12 is newer than 6.9."""
    return [int(number) for number in re.findall(r"\d+", path.name)]


def source_tree() -> Path | None:
    """The newest kernel source there is."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    trees = [path.parents[3] for path in Path("/usr/src").glob("*/include/uapi/linux/iommufd.h")]
    return max(trees, key=release, default=None)


def header(name: str) -> Path:
    """A header by its path in the kernel's sources. The test is skipped where none is new enough.

    With IOMMUCTL_REQUIRE_LAB=1 that is a failure.
    """
    if tree := source_tree():
        return tree / name
    if not (path := Path(name.replace("include/uapi", "/usr/include"))).is_file():
        _without(f"no {path.name} of a kernel here")
    version = int(Path("/usr/include/linux/version.h").read_text().split()[2])
    if version < DECLARED[0] << 16 | DECLARED[1] << 8:
        _without(f"{path} is of Linux {version >> 16}.{version >> 8 & 255}")
    return path


def _without(what: str) -> NoReturn:
    reason = f"{what}; {VARIABLE} can name a kernel source tree"
    if os.environ.get("IOMMUCTL_REQUIRE_LAB") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def structures(module: ModuleType) -> dict[str, type[ctypes.Structure]]:
    """The structures that a module declares by the kernel's names."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, ctypes.Structure) and value.__module__ == module.__name__
        if not name.startswith("_")
    }


def constants(module: ModuleType) -> dict[str, int]:
    """The numbers that a module declares by the kernel's names."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and name[0] != "_" and isinstance(value, int)
    }


def fields(kind: type[ctypes.Structure | ctypes.Union], base: int = 0) -> Iterator[tuple[str, int, int]]:
    """Paths, offsets and sizes of all fields; inside others as `outer.inner`."""
    for name, of, *_ in kind._fields_:
        offset = base + getattr(kind, name).offset
        anonymous = name in getattr(kind, "_anonymous_", ())
        if not anonymous:
            yield name, offset, ctypes.sizeof(of)
        if issubclass(of, (ctypes.Structure, ctypes.Union)):
            prefix = "" if anonymous else f"{name}."
            yield from ((f"{prefix}{path}", start, size) for path, start, size in fields(of, offset))


def declared(module: ModuleType) -> dict[str, int]:
    """All that the module says."""
    found = constants(module)
    for name, kind in structures(module).items():
        found[f"sizeof({name})"] = ctypes.sizeof(kind)
        for path, offset, size in fields(kind):
            found[f"{name}.{path}"] = offset
            if size:  # what follows a structure has none
                found[f"{name}.{path}:size"] = size
    return found


def expression(name: str) -> str:
    """The C for one of the names."""
    if name.startswith("sizeof("):
        return name.replace("sizeof(", "sizeof(struct ")
    kind, _, path = name.partition(".")
    if not path:
        return f"(unsigned long long)({name})"
    if path.endswith(":size"):
        return f"sizeof(((struct {kind} *)0)->{path.removesuffix(':size')})"
    return f"offsetof(struct {kind}, {path})"


def compiled(source: Path, names: list[str], folder: Path) -> dict[str, int]:
    """The same names, as the compiler sees them in a header."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc)")
    lines = [f'  printf("%llu\\n", (unsigned long long){expression(name)});' for name in names]
    program = folder / "layouts"
    text = (
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{source}"\nint main(void) {{\n'
        + "\n".join(lines)
        + "\n}\n"
    )
    program.with_suffix(".c").write_text(text)
    tree = source_tree()
    # A tree's headers have not gone through the kernel's headers_install, which takes these words out.
    words = ["-D__user=", "-D__counted_by(x)=", "-D__EXPORTED_HEADERS__"]
    search = ["-I", str(tree / "include/uapi")] if tree else []
    subprocess.run([compiler, *words, *search, "-o", program, program.with_suffix(".c")], check=True)
    numbers = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(names, map(int, numbers), strict=True))
