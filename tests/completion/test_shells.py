# SPDX-License-Identifier: Apache-2.0
"""TAB in real shells: what the command line becomes, and what is offered."""

import sqlite3
from pathlib import Path

import pytest

from iommuctl import Iommu
from iommuctl.cli.app import COMMANDS
from iommuctl.plugins import structures
from tests.completion.conftest import FAR, RID1, RID2, Folders
from tests.completion.shells import ROOT, SCRIPTS, Shell

OTHER = "~/my\\ other"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        # Commands
        ("do", "domain "),
        ("domain sh", "domain show "),
        ("-j --quiet domain sh", "-j --quiet domain show "),
        ("bi", "bind-pgtable "),
        # Options and their values
        ("domain map --pr", "domain map --prot "),
        ("domain show domain1 --j", "domain show domain1 --json "),
        ("topology --by dev", "topology --by device "),
        ("topology --by=dev", "topology --by=device "),
        ("--color al", "--color always "),
        ("--backend si", "--backend sim "),
        ("sim init --arch v", "sim init --arch vtd "),
        ("sim init --option haw=46 --opt", "sim init --option haw=46 --option "),
        # Structures
        ("table decode vtd.pasid-entr", "table decode vtd.pasid-entry "),
        # Names that live in the folder
        ("domain show domain2", "domain show domain2 "),
        ("domain show vm-1.", "domain show vm-1.a@x "),
        ("domain show vm-1.a@", "domain show vm-1.a@x "),
        ("domain show _", "domain show _low "),
        ("pgtable show ", "pgtable show sva-a "),
        ("pgtable create new --parent domain2", "pgtable create new --parent domain2 "),
        ("bind-pgtable domain2 0000:00:01.0 --pgtable ", "bind-pgtable domain2 0000:00:01.0 --pgtable sva-a "),
        ("domain map domain1 --memory ", "domain map domain1 --memory buffers "),
        ("memory destroy bu", "memory destroy buffers "),
        ("table dump sv", "table dump sva-a "),
        ("table dump 0000:3", "table dump 0000:3a:1f.7 "),
        # RIDs, at each place where a shell may cut
        ("device show 0000:3", "device show 0000:3a:1f.7 "),
        ("device show 0000:3a:", "device show 0000:3a:1f.7 "),
        ("attach domain1 0000:00:01", "attach domain1 0000:00:01.0 "),
        ("attach domain1 0000:00:0", "attach domain1 0000:00:0"),
        ('attach domain1 "0000:3', 'attach domain1 "0000:3a:1f.7" '),
        ("invalidate domain2 --device=0000:3", "invalidate domain2 --device=0000:3a:1f.7 "),
        # PASIDs, of the RID that stands on the line
        ("detach domain2 0000:00:01.0 --pasid 4", "detach domain2 0000:00:01.0 --pasid 4095 "),
        ("detach domain1 0000:00:02.0 --pasid ", "detach domain1 0000:00:02.0 --pasid 7 "),
        ("translate 00:02.0 0x1000 --pasid ", "translate 00:02.0 0x1000 --pasid 7 "),
        ("invalidate domain2 --device 0000:00:02.0 --pasid ", "invalidate domain2 --device 0000:00:02.0 --pasid 7 "),
        ("attach domain1 0000:00:02.0 --pasid a", "attach domain1 0000:00:02.0 --pasid auto "),
        # Another folder, before the command and after it
        (f"--state {OTHER} domain show ", f"--state {OTHER} domain show elsewhere "),
        (f"domain show --state {OTHER} ", f"domain show --state {OTHER} elsewhere "),
        ("--state='my other' device show ", "--state='my other' device show 0000:4b:00.0 "),
        # After -- nothing is an option
        ("domain show -- _", "domain show -- _low "),
        # Files and folders
        ("batch comm", "batch commands.txt "),
        ("--state fold", "--state folder/"),
        ("domain list > comm", "domain list > commands.txt "),
        # What is not known, or not given yet, or new, is left as it is
        ("nonsense d", "nonsense d"),
        ("domain show --nonsense d", "domain show --nonsense d"),
        ("domain create dom", "domain create dom"),
        ("device add 0000:3", "device add 0000:3"),
        ("domain show nothing", "domain show nothing"),
        ("--state $UNKNOWN domain show _", "--state $UNKNOWN domain show _"),
        ("--state /nowhere domain show _", "--state /nowhere domain show _"),
    ],
)
def test_the_line_after_tab(shell: Shell, folders: Folders, typed: str, completed: str) -> None:
    (folders.home / "commands.txt").touch()
    (folders.home / "folder").mkdir(exist_ok=True)
    assert shell.tab(f"iommuctl {typed}").line == f"iommuctl {completed}"


@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        ("", set(COMMANDS), {"domain1"}),
        ("domain ", {"create", "destroy", "list", "map", "show", "unmap"}, {"attach"}),
        ("domain map domain1 --", {"--iova", "--size", "--memory", "--prot", "--state", "--help"}, {"--brief"}),
        ("domain map domain1 --iova 0 -j --", {"--size", "--prot"}, {"--iova", "--json"}),
        ("pgtable map sva-a --user --", {"--gpa"}, {"--privileged"}),
        ("domain map domain1 --prot ", {"r", "w", "rw", "rx", "rwx"}, {"--iova"}),
        ("domain show ", {"domain1", "domain2", "vm-1.a@x", "_low"}, {"sva-a", "buffers", RID1, "elsewhere"}),
        ("attach domain1 ", {RID1, RID2, FAR}, {"domain2"}),
        ("table dump ", {RID1, RID2, FAR, "domain1", "sva-a"}, {"buffers"}),
        ("detach domain2 0000:00:01.0 --pasid ", {"12", "4095"}, {"7", "auto"}),
        ("attach domain2 0000:00:01.0 --pasid ", {"12", "4095", "auto"}, {"7"}),
        ("invalidate domain2 --pasid ", {"7", "12", "4095"}, set()),
        ("table decode ", set(structures()), {"domain1"}),
        ("attach domain1 0000:00:01.0 ", {"--pasid", "--replace", "--label"}, {RID2}),
    ],
)
def test_what_is_offered(shell: Shell, typed: str, offered: set[str], not_offered: set[str]) -> None:
    listed = shell.tab(f"iommuctl {typed}").listed - set(typed.split())
    assert offered - listed == set()
    assert not_offered & listed == set()


def test_a_script_that_is_sourced(shell: Shell) -> None:
    """As for one shell only; at the start, zsh found the script in its $fpath."""
    if shell.name == "zsh":
        shell.run("compdef -d iommuctl; unfunction _iommuctl")
    shell.run(f"source {ROOT / 'completions' / SCRIPTS[shell.name]}")
    assert shell.tab("iommuctl domain show _").line == "iommuctl domain show _low "


def test_a_program_that_is_typed_with_its_path(shell: Shell, folders: Folders) -> None:
    """The program that will run is the one that answers; this one knows a domain that nobody else has."""
    program = folders.home / "bin" / "iommuctl"
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\n[ "$1 $2" = "__complete DOMAIN" ] && echo of-this-program\n', "utf-8")
    program.chmod(0o755)
    assert shell.tab("~/bin/iommuctl domain show ").line == "~/bin/iommuctl domain show of-this-program "


def test_a_hostile_folder(shell: Shell, folders: Folders, tmp_path: Path) -> None:
    """Neither what a terminal nor what a shell would obey comes out of it."""
    with Iommu(tmp_path / "state", backend="sim") as iommu:
        iommu.domain_create("good")
    with sqlite3.connect(tmp_path / "state" / "state.db") as connection:
        for number, name in enumerate((f"$(touch {tmp_path}/ran)", "`id`", ";id", "\x1b[31mred", "two words", "a\nb")):
            columns = "id, name, nest_parent, width, page_sizes"
            connection.execute(f"INSERT INTO domain ({columns}) VALUES (?, ?, 0, 48, '[]')", (100 + number, name))
    connection.close()
    answer = shell.tab(f"iommuctl --state {tmp_path}/state domain show ")
    assert answer.line == f"iommuctl --state {tmp_path}/state domain show good "
    assert not (tmp_path / "ran").exists()
