# SPDX-License-Identifier: Apache-2.0
"""From TOML to a Document. Whatever is wrong is a bad-document with file, line, key and what was expected."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from iommuctl.errors import IommuError
from iommuctl.model import Slot
from iommuctl.plan import shape
from iommuctl.plan.document import (
    AttachmentEntry,
    BindingEntry,
    DeviceEntry,
    Document,
    DomainEntry,
    Entry,
    GuestMapping,
    Key,
    MappingEntry,
    MemoryEntry,
    PageTableEntry,
    Path,
)
from iommuctl.plan.source import Source
from iommuctl.requests import SetupRequest


def read(source: Source) -> Document:
    """The document in a text. Raises BadDocument."""
    return _Reader(source).document()


class _Reader:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._objects: dict[Key, Entry] = {}
        self._places: dict[Key, Path] = {}

    def document(self) -> Document:
        top = self._source.table
        if "schema" in top and self._value(("schema",), shape.COUNT, top["schema"]) != shape.SCHEMA:
            # First of all: another version may have other keys.
            raise self._source.error(
                ("schema",), f"{top['schema']} is not a version of the format that this program knows",
                because=f"it knows version {shape.SCHEMA}",
            )  # fmt: skip
        tables = {name: top[name] for name in (*shape.NAMED, "machine") if name in top}
        found = self._fields(
            (), {n: v for n, v in top.items() if n not in tables}, shape.TOP, more=[*shape.NAMED, "machine"]
        )
        machine = None
        if "machine" in tables:
            machine = SetupRequest(**self._fields(("machine",), tables["machine"], shape.MACHINE.fields))
        for kind in shape.NAMED:
            self._named(kind, tables.get(kind, {}))
        return Document(found.get("backend"), machine, self._objects, self._places)

    def _named(self, kind: str, tables: Any) -> None:
        """All objects of a kind."""
        if not isinstance(tables, dict):
            raise self._expected((kind,), tables, f"tables, as [{kind}.NAME]")
        shown = shape.NAMED[kind]
        for text, table in tables.items():
            path = (kind, text)
            try:
                name = shape.read_name(kind, text)
            except IommuError as error:
                raise self._source.error(path, error.what, because=error.because, hint=error.hint) from None
            if not isinstance(table, dict):
                raise self._expected(path, table, f"a table, as [{kind}.{text}]")
            plain = {key: value for key, value in table.items() if key not in shown.arrays}
            fields = self._fields(path, plain, shown.fields, more=shown.arrays)
            arrays = {key: self._array((*path, key), table.get(key, []), each) for key, each in shown.arrays.items()}
            self._object(kind, name, path, fields, arrays)

    def _object(
        self, kind: str, name: Any, path: Path, fields: dict[str, Any], arrays: dict[str, list[dict[str, Any]]]
    ) -> None:
        match kind:
            case "memory":
                self._add(Key("memory", name), MemoryEntry(**fields), path)
            case "domain":
                self._add(Key("domain", name), DomainEntry(**fields), path)
                for index, mapping in enumerate(arrays["mappings"]):
                    place = (*path, "mappings", index)
                    key = Key("mapping", (name, mapping.pop("iova")))
                    self._add(key, self._mapping(mapping), place)
            case "pgtable":
                mappings = tuple(map(_guest_mapping, arrays["mappings"]))
                self._check_apart((*path, "mappings"), mappings)
                self._add(Key("pgtable", name), PageTableEntry(**fields, mappings=mappings), path)
            case _:
                self._add(Key("device", name), DeviceEntry(**fields), path)
                for array, of_slots in arrays.items():
                    for index, entry in enumerate(of_slots):
                        place = (*path, array, index)
                        slot = Slot(name, self._pasid(place, entry))
                        if array == "attachments":
                            self._add(Key("attachment", slot), AttachmentEntry(**entry), place)
                        else:
                            self._add(Key("binding", slot), self._binding(place, entry), place)
                self._check_cd_pool((*path, "bindings"), arrays["bindings"])

    def _add(self, key: Key, entry: Entry, path: Path) -> None:
        if key in self._objects:
            first = self._source.elsewhere(self._places[key])
            raise self._source.error(path, f"{key} stands here twice", because=f"it stands {first}, too")
        self._objects[key], self._places[key] = entry, path

    def _pasid(self, path: Path, entry: dict[str, Any]) -> int | None:
        pasid: int | None = entry.pop("pasid", None)
        if pasid == 0:
            raise self._source.error(
                (*path, "pasid"),
                "PASID 0 cannot be named",
                because="it is the slot of the RID itself",
                hint="leave it away",
            )
        return pasid

    def _mapping(self, fields: dict[str, Any]) -> MappingEntry:
        name, offset = fields.pop("memory", (None, 0))
        return MappingEntry(memory=name, offset=offset, **fields)

    def _binding(self, path: Path, fields: dict[str, Any]) -> BindingEntry:
        if "pgtable" in fields and "format" in fields:
            raise self._source.error(
                (*path, "format"), "a page table that iommuctl builds has its own format",
                because="the format here is of one at `addr`", hint="leave it away",
            )  # fmt: skip
        return BindingEntry(**fields)

    def _check_cd_pool(self, path: Path, bindings: Sequence[Mapping[str, Any]]) -> None:
        """One pool for all bindings of a device that say one."""
        said = [(index, entry["cd_pool"]) for index, entry in enumerate(bindings) if "cd_pool" in entry]
        for index, pool in said[1:]:
            first, (start, size) = said[0]
            if pool != (start, size):
                elsewhere = self._source.elsewhere((*path, first, "cd_pool"))
                raise self._source.error(
                    (*path, index, "cd_pool"),
                    "a device has one CD table",
                    because=f"{start:#x}+{size:#x} stands {elsewhere}",
                )

    def _one_of(self, path: Path, fields: Mapping[str, Any], names: tuple[str, ...]) -> None:
        there = sum(name in fields for name in names)
        if there != 1:
            both = "both of them stand" if there else "none of them stands"
            raise self._source.error(
                path, f"{both} here: {' and '.join(names)}", because="exactly one of them is needed"
            )

    def _check_apart(self, path: Path, mappings: tuple[GuestMapping, ...]) -> None:
        order = sorted(range(len(mappings)), key=lambda index: mappings[index].iova)
        for before, after in pairwise(order):
            first, second = mappings[before], mappings[after]
            if first.iova + first.size > second.iova:
                raise self._source.error(
                    (*path, after), f"{second.iova:#x}+{second.size:#x} overlaps another mapping",
                    because=f"{first.iova:#x}+{first.size:#x} stands {self._source.elsewhere((*path, before))}",
                )  # fmt: skip

    def _array(self, path: Path, value: Any, table: shape.Table) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            raise self._expected(path, value, "an array of tables")
        found = [self._fields((*path, index), each, table.fields) for index, each in enumerate(value)]
        if table.one_of:
            for index, fields in enumerate(found):
                self._one_of((*path, index), fields, table.one_of)
        return found

    def _fields(
        self, path: Path, table: Any, fields: Iterable[shape.Field], *, more: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The values of a table's keys."""
        if not isinstance(table, dict):
            raise self._expected(path, table, "a table")
        known = {field.name: field for field in fields}
        values = {}
        for name, value in table.items():
            if name not in known:
                raise self._unknown((*path, name), [*known, *more])
            values[name] = self._value((*path, name), known[name].kind, value)
        for field in known.values():
            if field.required and field.name not in values:
                raise self._source.error(
                    path, f"the key {field.name} is missing", because=f"it is {field.kind.words}: {field.meaning}"
                )
        return values

    def _value(self, path: Path, kind: shape.Kind, value: Any) -> Any:
        try:
            return shape.read_value(kind, value)
        except IommuError as error:
            because = "; ".join(part for part in (error.because, f"expected {kind.words}") if part)
            raise self._source.error(path, error.what, because=because, hint=error.hint) from None

    def _expected(self, path: Path, value: Any, words: str) -> IommuError:
        return self._source.error(path, f"{shape.type_name(value)} stands here", because=f"expected {words}")

    def _unknown(self, path: Path, known: list[str]) -> IommuError:
        import difflib

        name = str(path[-1])
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else ""
        return self._source.error(path, "no such key", because=f"the keys here are {', '.join(known)}", hint=hint)


def _guest_mapping(fields: dict[str, Any]) -> GuestMapping:
    privileged = fields.pop("privileged", False)
    mapping = GuestMapping(**fields)
    return mapping._replace(prot=mapping.prot + "p") if privileged else mapping
