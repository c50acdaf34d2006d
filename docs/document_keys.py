# SPDX-License-Identifier: Apache-2.0
"""The keys of topology documents, as a part of the reference and as a JSON Schema."""

import json
from collections.abc import Iterator
from typing import Any

from docs.markdown import table
from iommuctl.plan import shape


def document_keys() -> Iterator[str]:
    """Every key of a topology document."""
    yield "## Document keys"
    yield (
        "What a topology document may hold, for `plan` and `apply`. "
        "[topology.schema.json](topology.schema.json) is the same as a JSON Schema."
    )
    yield table(("key", "", "what", "meaning"), map(key_row, shape.TOP))
    for name, each in {"machine": shape.MACHINE, **shape.NAMED}.items():
        place = f"[{name}]" if name not in shape.NAMED else f"[{name}.{'RID' if name == 'device' else 'NAME'}]"
        yield f"`{place}`: {each.meaning}."
        yield table(("key", "", "what", "meaning"), map(key_row, each.fields))
        for array, element in each.arrays.items():
            yield f"`{array}` in `{place}`, an array of tables: {element.meaning}."
            yield table(("key", "", "what", "meaning"), map(key_row, element.fields))


def key_row(field: shape.Field) -> tuple[str, ...]:
    """A key of a document in a table of them."""
    return f"`{field.name}`", "needed" if field.required else "", field.kind.words, field.meaning


def schema() -> str:
    """The JSON Schema of a topology document."""
    tables = {
        name: {
            "type": "object",
            "description": f"{each.meaning}, by its {'RID' if name == 'device' else 'name'}",
            "propertyNames": {"pattern": shape.PATTERNS[name]},
            "additionalProperties": table_schema(each),
        }
        for name, each in shape.NAMED.items()
    }
    whole = table_schema(shape.Table("What should be there", shape.TOP))
    whole["properties"]["schema"] = {"const": shape.SCHEMA, "description": shape.TOP[0].meaning}
    whole["properties"] |= {"machine": table_schema(shape.MACHINE), **tables}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Topology document of iommuctl"}
    return json.dumps(head | whole, indent=2) + "\n"


def table_schema(each: shape.Table) -> dict[str, Any]:
    """The JSON Schema of one table."""
    properties = {
        field.name: {**field.kind.schema, "description": f"{field.meaning} ({field.kind.words})"}
        for field in each.fields
    } | {
        name: {"type": "array", "description": element.meaning, "items": table_schema(element)}
        for name, element in each.arrays.items()
    }
    found: dict[str, Any] = {"type": "object", "description": each.meaning, "properties": properties}
    found["additionalProperties"] = False
    if required := [field.name for field in each.fields if field.required]:
        found["required"] = required
    if each.one_of:
        found["oneOf"] = [{"required": [name]} for name in each.one_of]
    return found
