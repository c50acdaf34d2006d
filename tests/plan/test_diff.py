# SPDX-License-Identifier: Apache-2.0
"""What changes between two documents, and the order in which it is carried out."""

from typing import Any

import pytest

from iommuctl.plan.diff import Change, changes
from iommuctl.plan.document import AttachmentEntry, BindingEntry, Document, MappingEntry
from iommuctl.plan.reading import read
from iommuctl.plan.source import Source

STATE = """
schema = 1
memory.m.size = "8M"
memory.other.size = "4K"

[domain.vm]
label = "a label"
nest_parent = true
width = 48
page_sizes = "4K,2M"
mappings = [{ iova = 0, size = "4M", memory = "m" }, { iova = "4M", size = "4K", memory = "other" }]

[domain.host]
nest_parent = true
width = 48
page_sizes = "4K,2M"

[pgtable.t]
parent = "vm"
pool = "1M+64K"
format = "f"
mappings = [{ iova = 0, size = "8K", gpa = 0 }]

[device."00:01.0"]
ats = true
pri = false
pasid_bits = 8
attachments = [{ domain = "vm", label = "rid" }, { pasid = 1, domain = "host" }, { pasid = 2, domain = "vm" }]
bindings = [{ domain = "vm", pgtable = "t" }, { pasid = 3, domain = "vm", pgtable = "t" }]
"""


def parsed(text: str) -> Document:
    return read(Source("file", text))


def state(text: str) -> Document:
    """A document as a state that it was applied to gives it back: with the permissions of every mapping."""
    document = parsed(text)
    for key, entry in document.objects.items():
        if isinstance(entry, MappingEntry):
            document.objects[key] = entry._replace(prot=entry.prot or "rw")
    return document


def found(old: str, new: str, *, prune: bool = False) -> list[Change]:
    return changes(state(old), parsed(new), prune=prune)


def shown(found: list[Change]) -> dict[str, str]:
    assert len({change.key for change in found}) == len(found)
    return {str(change.key): change.action for change in found}


RID = "0000:00:01.0"
BOUND = {f"binding {RID}": "replace", f"binding {RID} PASID 3": "replace"}

# What is replaced in the text, and what the document then changes in the state.
CHANGES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "nothing": ({}, {}),
    "a label": ({'"a label"': '"another"'}, {"domain vm": "change"}),
    "a label is left out": ({'label = "a label"': ""}, {}),
    "a width is left out": ({"width = 48\npage_sizes = \"4K,2M\"\nmappings": "mappings"}, {}),
    "a format is left out": ({'format = "f"': ""}, {}),
    "the size of memory that is mapped": (
        {"other.size = \"4K\"": "other.size = \"8K\""},
        {"memory other": "replace", "mapping 0x400000 of vm": "replace"},
    ),
    "a mapping elsewhere": (
        {'iova = "4M", size = "4K", memory = "other"': 'iova = "4M", size = "4K", memory = "m+4M"'},
        {"mapping 0x400000 of vm": "replace"},
    ),
    "a mapping under a pool": (
        {'memory = "m"': 'memory = "m+4M"'}, {"mapping 0x0 of vm": "replace", "pgtable t": "replace", **BOUND}
    ),
    "a width": (
        {"width = 48\npage_sizes = \"4K,2M\"\nmappings": "width = 39\npage_sizes = \"4K,2M\"\nmappings"},
        {
            "domain vm": "replace", "mapping 0x0 of vm": "replace", "mapping 0x400000 of vm": "replace",
            "pgtable t": "replace", f"attachment {RID}": "replace", f"attachment {RID} PASID 2": "replace", **BOUND,
        },
    ),
    "a pool": ({'"1M+64K"': '"2M+64K"'}, {"pgtable t": "replace", **BOUND}),
    "what a page table maps": ({'size = "8K"': 'size = "12K"'}, {"pgtable t": "change"}),
    "a label of a slot": ({'"rid"': '"other"'}, {f"attachment {RID}": "change"}),
    "another domain in a slot": (
        {'pasid = 1, domain = "host"': 'pasid = 1, domain = "vm"'}, {f"attachment {RID} PASID 1": "change"}
    ),
    "another domain below a binding": (
        {'{ domain = "vm", label = "rid" }': '{ domain = "host" }'},
        {f"attachment {RID}": "change", f"binding {RID}": "replace"},
    ),
    "an attachment below a binding that made its own": (
        {"attachments = [": 'attachments = [{ pasid = 3, domain = "vm" },'},
        {f"attachment {RID} PASID 3": "add", f"binding {RID} PASID 3": "replace"},
    ),
    "a page table at an address": (
        {'pasid = 3, domain = "vm", pgtable = "t"': 'pasid = 3, domain = "vm", addr = 4096'},
        {f"binding {RID} PASID 3": "replace"},
    ),
    "what a device can do": (
        {"ats = true": "ats = false"},
        {
            f"device {RID}": "replace", f"attachment {RID}": "replace", f"attachment {RID} PASID 1": "replace",
            f"attachment {RID} PASID 2": "replace", **BOUND,
        },
    ),
    "something new": (
        {"[domain.host]": '[domain.new]\nmappings = [{ iova = 0, size = 1, pa = 0 }]\n[domain.host]'},
        {"domain new": "add", "mapping 0x0 of new": "add"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_changes(name: str, prune: bool) -> None:
    replacements, expected = CHANGES[name]
    text = STATE
    for old, new in replacements.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    if prune and name == "a label is left out":
        expected = {"domain vm": "change"}
    differing = found(STATE, text, prune=prune)
    assert shown(differing) == expected
    assert all(change.because for change in differing)


def test_a_page_table_has_its_own_format() -> None:
    """That of the table at an address, which was in the slot, is not taken over."""
    text = "schema = 1\n[device.'00:01.0']\nbindings = [{ pasid = 1, domain = 'd', addr = 4096, format = 'f' }]"
    (change,) = found(text, text.replace("addr = 4096, format = 'f'", "pgtable = 't'"))
    assert change.new == BindingEntry("d", "t")


def test_nothing_is_removed_without_prune() -> None:
    assert found(STATE, "schema = 1") == []
    removed = shown(found(STATE, "schema = 1", prune=True))
    assert set(removed.values()) == {"remove"}
    assert len(removed) == len(parsed(STATE).objects)


def test_labels_go_with_prune_alone() -> None:
    """A document that leaves a label out does not name it."""
    text = STATE.replace(', label = "rid"', "")
    assert found(STATE, text) == []
    (change,) = found(STATE, text, prune=True)
    assert (change.action, change.new) == ("change", AttachmentEntry("vm"))


def test_what_a_page_table_maps_beside_the_document_stays_unless_pruned() -> None:
    text = STATE.replace('iova = 0, size = "8K", gpa = 0', 'iova = "4K", size = "8K", gpa = 0')
    (change,) = found(STATE, text)
    assert [tuple(one) for one in change.new.mappings] == [(0, 4096, 0, "rw"), (4096, 8192, 0, "rw")]  # type: ignore[union-attr]
    (change,) = found(STATE, text, prune=True)
    assert [tuple(one) for one in change.new.mappings] == [(4096, 8192, 0, "rw")]  # type: ignore[union-attr]


def test_each_change_says_why() -> None:
    def why(text: str, *, prune: bool = False) -> dict[str, Any]:
        return {str(change.key): change.because for change in found(STATE, text, prune=prune)}

    assert why(STATE.replace('other.size = "4K"', 'other.size = "8K"')) == {
        "memory other": "size cannot change in place, and what it holds is lost",
        "mapping 0x400000 of vm": "memory other is replaced",
    }
    removed = why(
        STATE.replace("[domain.host]", "[domain.new]").replace('domain = "host"', 'domain = "new"'), prune=True
    )
    assert removed == {
        "domain host": "the document does not name it",
        "domain new": "it is not there yet",
        f"attachment {RID} PASID 1": "it differs",
    }
    assert why(STATE.replace("ats = true", "ats = false\npri = true").replace("pri = false", ""))[f"device {RID}"] == (
        "ats and pri cannot change in place"
    )


MINIMAL = 'schema = 1\n[domain.d]\nmappings = [{ iova = 0, size = "4K", pa = 0 }]\n'


def test_a_mapping_that_is_read_only_stays_so_unless_the_document_says_otherwise() -> None:
    read_only = MINIMAL.replace(" }]", ', prot = "r" }]')
    assert found(read_only, MINIMAL) == []
    (change,) = found(read_only, MINIMAL.replace(" }]", ', prot = "rw" }]'))
    assert (change.action, change.key.kind) == ("replace", "mapping")
