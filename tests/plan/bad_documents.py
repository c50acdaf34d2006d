# SPDX-License-Identifier: Apache-2.0
"""Documents with one mistake each."""

from typing import NamedTuple


class Bad(NamedTuple):
    """A document, and what is said about it: the line, the key's path, and words of the message.

    `by_shape` is for those in which a key, a type or a spelling is wrong, as a JSON Schema can tell.
    """

    text: str
    line: int
    path: str
    words: str
    by_shape: bool = True


def bad(body: str, line: int, path: str, words: str, *, by_shape: bool = True) -> Bad:
    """A document of the version that there is. Its body begins on line 2."""
    return Bad(f"schema = 1\n{body}\n", line, path, words, by_shape)


DOMAIN = "[domain.d]\n"
DEVICE = '[device."00:01.0"]\n'
PGTABLE = '[pgtable.t]\nparent = "d"\npool = "1M+64K"\n'
AT_DEVICE = 'device."00:01.0"'

BAD: dict[str, Bad] = {
    # The text
    "nothing at all": Bad("", 1, "", "the key schema is missing"),
    "only a comment": Bad("# schema = 1\n", 1, "", "the key schema is missing"),
    "not TOML": bad("[domain.d\n", 2, "", "this is not TOML", by_shape=False),
    "a value is missing": bad("\nbackend =\n", 3, "", "this is not TOML", by_shape=False),
    "an open string": bad('backend = "sim\n', 2, "", "this is not TOML", by_shape=False),
    "an open array": bad(DOMAIN + "mappings = [", 4, "", "this is not TOML", by_shape=False),
    "a key twice": bad('backend = "sim"\nbackend = "sim"', 3, "", "this is not TOML", by_shape=False),
    "a table twice": bad(DOMAIN + "width = 48\n" + DOMAIN, 4, "", "this is not TOML", by_shape=False),
    "a control character": bad('backend = "\x01"', 2, "", "this is not TOML", by_shape=False),
    "a number with too many digits": bad(DOMAIN + f"width = {'9' * 5000}", 1, "", "too many digits", by_shape=False),
    "values nested too deeply": bad(f"a = {'[' * 5000}{']' * 5000}", 1, "", "nested too deeply", by_shape=False),
    # The top
    "schema is of another version": Bad("schema = 2\nnew = 1\n", 1, "schema", "2 is not a version"),
    "schema is zero": Bad("\nschema = 0\n", 2, "schema", "0 is not a version"),
    "schema is a string": Bad('schema = "1"\n', 1, "schema", "a string stands here"),
    "schema is a boolean": Bad("schema = true\n", 1, "schema", "a boolean stands here"),
    "schema is negative": Bad("schema = -1\n", 1, "schema", "not negative"),
    "an unknown key": bad("version = 2", 2, "version", "no such key"),
    "a key with a typo": bad("[domains.d]\n", 2, "domains", "did you mean domain?"),
    "an unknown key with a strange name": bad('"a\\"b\\n" = 1', 2, '"a\\"b\\n"', "no such key"),
    "an empty key": bad('"" = 1', 2, '""', "no such key"),
    "the backend is a number": bad("backend = 1", 2, "backend", "expected a word"),
    "the backend is a table": bad('[backend]\nname = "sim"', 2, "backend", "a table stands here"),
    # The machine
    "the machine is a string": bad('machine = "sim"', 2, "machine", "a string stands here; expected a table"),
    "an unknown key of the machine": bad("[machine]\nmemory = 1", 3, "machine.memory", "no such key"),
    "RAM is a number": bad("[machine]\nram = 4096", 3, "machine.ram", "expected a range"),
    "RAM is no range": bad('[machine]\nram = "4G"', 3, "machine.ram", "is not a range", by_shape=False),
    "RAM is empty": bad('[machine]\nram = "0+0"', 3, "machine.ram", "is zero", by_shape=False),
    "RAM ends before it begins": bad('[machine]\nram = "9..1"', 3, "machine.ram", "ends before", by_shape=False),
    "tables wrap around": bad('[machine]\ntables = "0x1000+16777216T"', 3, "machine.tables", "large", by_shape=False),
    "options are an array": bad("[machine]\noptions = []", 3, "machine.options", "an array stands here"),
    "an option is a float": bad("[machine]\noptions = {haw = 4.5}", 3, "machine.options", "the option haw is a float"),
    "an option is a boolean": bad("[machine.options]\nx = true", 2, "machine.options", "the option x is a boolean"),
    # Memory
    "memory is an array of tables": bad("[[memory]]\nsize = 1", 2, "memory", "an array stands here; expected tables"),
    "memory without a size": bad("[memory.m]\n", 2, "memory.m", "the key size is missing"),
    "memory is a size": bad('[memory]\nm = "4K"', 3, "memory.m", "expected a table, as [memory.m]"),
    "a name with a space": bad('[memory."a b"]\nsize = 1', 2, 'memory."a b"', "'a b' cannot be a name"),
    "an empty name": bad('[memory.""]\nsize = 1', 2, 'memory.""', "cannot be a name"),
    "a name that begins with a dash": bad("[memory.-x]\nsize = 1", 2, "memory.-x", "cannot be a name"),
    "a name that is too long": bad(f"[memory.{'m' * 64}]\nsize = 1", 2, f"memory.{'m' * 64}", "cannot be a name"),
    "a size of zero": bad("[memory.m]\nsize = 0", 3, "memory.m.size", "zero"),
    "a size of zero as text": bad('[memory.m]\nsize = "0"', 3, "memory.m.size", "zero", by_shape=False),
    "a negative size": bad("[memory.m]\nsize = -4096", 3, "memory.m.size", "not negative"),
    "a size that is a float": bad("[memory.m]\nsize = 1.5", 3, "memory.m.size", "a float stands here; expected a size"),
    "a size in MB": bad('[memory.m]\nsize = "4MB"', 3, "memory.m.size", "'4MB' is not a number"),
    "a size with an underscore": bad('[memory.m]\nsize = "4_096"', 3, "memory.m.size", "underscores"),
    "a size of 65 bits": bad("[memory.m]\nsize = 0x10000000000000000", 3, "memory.m.size", "too large", by_shape=False),
    "a size that is a date": bad("[memory.m]\nsize = 2026-01-01", 3, "memory.m.size", "a date or time stands here"),
    # Domains
    "a label that is a number": bad(DOMAIN + "label = 1", 3, "domain.d.label", "an integer stands here; expected text"),
    "nest_parent is a word": bad(DOMAIN + 'nest_parent = "yes"', 3, "domain.d.nest_parent", "expected true or false"),
    "the width is text": bad(DOMAIN + 'width = "48"', 3, "domain.d.width", "expected an integer"),
    "the width is infinite": bad(DOMAIN + "width = inf", 3, "domain.d.width", "a float stands here"),
    "page sizes are an array": bad(DOMAIN + 'page_sizes = ["4K"]', 3, "domain.d.page_sizes", "expected sizes"),
    "a page size is empty": bad(DOMAIN + 'page_sizes = "4K,"', 3, "domain.d.page_sizes", "is empty", by_shape=False),
    "a key of another kind": bad(DOMAIN + "pasid_bits = 1", 3, "domain.d.pasid_bits", "the keys here are label, nest"),
    "a mapping with a typo": bad(DOMAIN + "mapping = []", 3, "domain.d.mapping", "did you mean mappings?"),
    "mappings are a table": bad("[domain.d.mappings]\n", 2, "domain.d.mappings", "expected an array of tables"),
    "a mapping is a string": bad(
        DOMAIN + 'mappings = [\n  "0x1000",\n]', 4, "domain.d.mappings[0]", "a string stands here; expected a table"
    ),
    "a mapping without a size": bad(
        DOMAIN + 'mappings = [{ iova = 0, pa = 0 }]', 3, "domain.d.mappings[0]", "the key size is missing"
    ),
    "a mapping to nothing": bad(
        DOMAIN + 'mappings = [\n  { iova = 0, size = 1, pa = 0 },\n  { iova = 2, size = 1 },\n]', 5,
        "domain.d.mappings[1]", "none of them stands here: memory and pa",
    ),
    "a mapping to two things": bad(
        DOMAIN + 'mappings = [{ iova = 0, size = 1, pa = 0, memory = "m" }]', 3, "domain.d.mappings[0]",
        "both of them stand here: memory and pa",
    ),
    "an address that is no number": bad(
        "[[domain.d.mappings]]\niova = \"ff\"\nsize = 1\npa = 0", 3, "domain.d.mappings[0].iova", "begin with 0x"
    ),
    "an address of 65 bits": bad(
        '[[domain.d.mappings]]\nsize = 1\npa = 0\niova = "0x10000000000000000"', 5, "domain.d.mappings[0].iova",
        "too large", by_shape=False,
    ),
    "an unknown protection": bad(
        "[[domain.d.mappings]]\niova = 0\nsize = 1\npa = 0\nprot = \"wr\"", 6, "domain.d.mappings[0].prot",
        "expected one of r, w, rw, rx, rwx",
    ),
    "memory that cannot be a name": bad(
        '[[domain.d.mappings]]\niova = 0\nsize = 1\nmemory = "+4K"', 5, "domain.d.mappings[0].memory",
        "names no memory", by_shape=False,
    ),
    "memory with a bad offset": bad(
        '[[domain.d.mappings]]\niova = 0\nsize = 1\nmemory = "m+x"', 5, "domain.d.mappings[0].memory",
        "'x' is not a number", by_shape=False,
    ),
    "an IOVA twice": bad(
        DOMAIN + 'mappings = [\n  { iova = 0x1000, size = 1, pa = 0 },\n  { iova = "4K", size = 2, pa = 0 },\n]', 5,
        "domain.d.mappings[1]", "mapping 0x1000 of d stands here twice; it stands on line 4, too", by_shape=False,
    ),
    # Page tables
    "a page table without a parent": bad('[pgtable.t]\npool = "0+1"', 2, "pgtable.t", "the key parent is missing"),
    "a page table without a pool": bad('[pgtable.t]\nparent = "d"', 2, "pgtable.t", "the key pool is missing"),
    "a parent that is an id": bad(
        PGTABLE.replace('"d"', '"id:1"'), 3, "pgtable.t.parent", "'id:1' cannot be a name"
    ),
    "a pool that is a size": bad(
        PGTABLE.replace("1M+64K", "64K"), 4, "pgtable.t.pool", "is not a range", by_shape=False
    ),
    "a format that is a boolean": bad(PGTABLE + "format = false", 5, "pgtable.t.format", "expected a word"),
    "privileged is a word": bad(
        PGTABLE + 'mappings = [{iova = 0, size = 1, gpa = 0, privileged = "no"}]', 5,
        "pgtable.t.mappings[0].privileged", "expected true or false",
    ),
    "a mapping of a page table to memory": bad(
        PGTABLE + 'mappings = [{iova = 0, size = 1, memory = "m"}]', 5, "pgtable.t.mappings[0].memory", "no such key"
    ),
    "mappings of a page table overlap": bad(
        PGTABLE + "mappings = [\n  {iova = 4096, size = 8, gpa = 0},\n\n  {iova = 0, size = 4097, gpa = 0},\n]", 6,
        "pgtable.t.mappings[0]", "0x1000+0x8 overlaps another mapping; 0x0+0x1001 stands on line 8", by_shape=False,
    ),
    # Devices
    "a device with a name": bad("[device.nic]\n", 2, "device.nic", "'nic' is not a RID"),
    "two pools for one CD table": bad(
        DEVICE + "".join(
            f'[[device."00:01.0".bindings]]\ndomain = "d"\naddr = 4096\npasid = {pasid}\ncd_pool = "{pasid}M+4K"\n'
            for pasid in (1, 2)
        ), 12, f"{AT_DEVICE}.bindings[1].cd_pool", "a device has one CD table; 0x100000+0x1000 stands on line 7",
        by_shape=False,
    ),
    "a device number that is too high": bad('[device."00:20.0"]', 2, 'device."00:20.0"', "not a RID", by_shape=False),
    "a device in two spellings": bad(
        DEVICE + '[device."0000:00:01.0"]', 3, 'device."0000:00:01.0"', "device 0000:00:01.0 stands here twice",
        by_shape=False,
    ),
    "ATS is a number": bad(DEVICE + "ats = 1", 3, f"{AT_DEVICE}.ats", "expected true or false"),
    "PASID bits are negative": bad(DEVICE + "pasid_bits = -1", 3, f"{AT_DEVICE}.pasid_bits", "not negative"),
    "an attachment without a domain": bad(
        DEVICE + "attachments = [{ pasid = 1 }]", 3, f"{AT_DEVICE}.attachments[0]", "the key domain is missing"
    ),
    "PASID 0": bad(
        DEVICE + 'attachments = [\n  { domain = "d", pasid = 0 },\n]', 4, f"{AT_DEVICE}.attachments[0].pasid",
        "PASID 0 cannot be named; it is the slot of the RID itself",
    ),
    "a PASID that is text": bad(
        DEVICE + 'attachments = [{ domain = "d", pasid = "auto" }]', 3, f"{AT_DEVICE}.attachments[0].pasid",
        "expected an integer",
    ),
    "a slot twice": bad(
        DEVICE + 'attachments = [\n  { domain = "d" },\n  { domain = "e" },\n]', 5, f"{AT_DEVICE}.attachments[1]",
        "attachment 0000:00:01.0 stands here twice; it stands on line 4, too", by_shape=False,
    ),
    "a binding of nothing": bad(
        DEVICE + 'bindings = [{ domain = "d" }]', 3, f"{AT_DEVICE}.bindings[0]", "none of them stands here: pgtable and"
    ),
    "a binding of two things": bad(
        DEVICE + 'bindings = [{ domain = "d", pgtable = "t", addr = 0 }]', 3, f"{AT_DEVICE}.bindings[0]",
        "both of them stand here",
    ),
    "a binding with a format that the page table has": bad(
        DEVICE + 'bindings = [{ domain = "d", pgtable = "t", format = "f" }]',
        3,
        f"{AT_DEVICE}.bindings[0].format",
        "has its own format",
        by_shape=False,
    ),
    "a binding with an empty domain": bad(
        DEVICE + 'bindings = [{ domain = "", pgtable = "t" }]', 3, f"{AT_DEVICE}.bindings[0].domain", "cannot be a name"
    ),
    "an attachment of a page table": bad(
        DEVICE + 'attachments = [{ domain = "d", pgtable = "t" }]', 3, f"{AT_DEVICE}.attachments[0].pgtable",
        "the keys here are pasid, domain, label",
    ),
    "a key within dotted keys": bad(
        'device."00:01.0".ats = true\ndevice."00:01.0".atc = true', 3, f"{AT_DEVICE}.atc", "did you mean ats?"
    ),
}  # fmt: skip
