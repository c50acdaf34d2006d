# SPDX-License-Identifier: Apache-2.0
"""The examples of the documents run, and print what the documents say; links lead somewhere."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs.blocks import blocks, examples, texts
from tests.docs.documents import REQUIRED, ROOT, Console, documents

DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith((".", "_")) for part in path.relative_to(ROOT).parts)
)


@pytest.mark.parametrize("name", documents())
def test_the_examples_run_and_print_what_the_document_says(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(tmp_path, capsys, monkeypatch)
    for block in blocks((ROOT / name).read_text("utf-8")):
        if block.file:
            (tmp_path / block.file).write_text(block.text, "utf-8")
        elif block.language == "python":
            text = "\n" * block.above + block.text.replace("/tmp", str(tmp_path / "tmp"))
            exec(compile(text, ROOT / name, "exec"), {})
            capsys.readouterr()
        elif block.language == "console":
            for example in examples(block.text):
                printed = console(example.command)
                if example.output and printed is not None:
                    assert printed == example.output, example.command
                elif printed is not None:
                    assert console.code == 0, (example.command, printed)
    if console.left_out:
        reason = f"there is no jq; all ran but {len(console.left_out)}"
        pytest.fail(reason) if os.environ.get(REQUIRED) == "1" else pytest.skip(reason)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        place, _, anchor = target.partition("#")
        if ":" in place:
            continue
        linked = path.parent / place if place else path
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_the_example_of_a_backend_conforms(tmp_path: Path) -> None:
    """It is installed as a package would be, found by its entry point, and passes every suite."""
    document = (ROOT / "docs" / "backends.md").read_text("utf-8")
    project = tomllib.loads(texts(document, "toml")[0])["project"]
    ((name, module),) = project["entry-points"]["iommuctl.backends"].items()
    (tmp_path / f"{module}.py").write_text(texts(document, "python")[0], "utf-8")
    metadata = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", "utf-8"
    )
    (metadata / "entry_points.txt").write_text(f"[iommuctl.backends]\n{name} = {module}\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "iommuctl.testing.run", name, "-q"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
