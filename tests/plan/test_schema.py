# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of topology documents, against what is exported and what is refused."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from iommuctl import Iommu
from iommuctl.errors import BadDocument
from iommuctl.plan import writing
from iommuctl.plan.current import describe
from iommuctl.plan.reading import read
from iommuctl.plan.source import Source
from tests.plan.bad_documents import BAD
from tests.plan.random_states import STATES, Call, build
from tests.plan.test_reading import EXAMPLE, FULL, OTHER_TYPES, changed, places

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "topology.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", [FULL, EXAMPLE], ids=["full", "example"])
def test_documents_are_valid(text: str) -> None:
    VALIDATOR.validate(tomllib.loads(text))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=STATES)
def test_exports_are_valid(tmp_path_factory: pytest.TempPathFactory, calls: list[Call]) -> None:
    with Iommu(tmp_path_factory.mktemp("state"), backend="sim") as iommu:
        iommu.setup(ram=(0, 64 << 20), tables=(32 << 20, 8 << 20))
        build(iommu, calls)
        VALIDATOR.validate(tomllib.loads(writing.text(describe(iommu))))


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.by_shape])
def test_what_is_wrong_by_shape_is_not_valid(name: str) -> None:
    assert not VALIDATOR.is_valid(tomllib.loads(BAD[name].text))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_not_valid_is_refused(data: st.DataObject) -> None:
    table: dict[str, Any] = tomllib.loads(data.draw(st.sampled_from((FULL, EXAMPLE))))
    path = data.draw(st.sampled_from(places(table)))
    how = data.draw(st.sampled_from(("value", "key", "gone")))
    text = tomli_w.dumps(changed(table, path, how, data.draw(st.sampled_from(OTHER_TYPES))))
    if not VALIDATOR.is_valid(tomllib.loads(text)):
        with pytest.raises(BadDocument):
            read(Source("file", text))
