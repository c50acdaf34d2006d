# SPDX-License-Identifier: Apache-2.0
"""The random walk itself: hypothesis chooses the operations."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import ClassVar

from iommuctl.testing.base import BackendSuite

PAGES = 8
"""Pages that the walk maps, in each domain and in each page table."""


class StatefulSuite(BackendSuite):
    """Any sequence of operations, against a model of plain dicts. It needs hypothesis."""

    examples: ClassVar[int] = 30
    steps: ClassVar[int] = 40
    probes: ClassVar[int] = 12
    """How many slots ask for an address after each operation, and how many pages that it is about before and after."""
    together: ClassVar[bool] = False
    """Whether each walk is one transaction, which is quicker, or each operation is one by itself."""
    counts: ClassVar[dict[str, int]] = {}
    """How many operations were carried out, and how many requests devices made."""

    def test_any_sequence_of_operations(self) -> None:
        from hypothesis import HealthCheck, Phase, settings
        from hypothesis import strategies as st
        from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

        from iommuctl.testing.machine import Model, Place, all_slots

        suite = type(self)
        suite.counts = {}
        nests = suite.declared().nesting != "none"
        domains = st.sampled_from(["d0", "d1", "p0", "p1"] if nests else ["d0", "d1"])
        tables = st.sampled_from(["t0", "t1", "t2"])
        slots = st.sampled_from(all_slots(suite))
        pages, counts, prots = st.integers(0, PAGES - 1), st.integers(1, 3), st.sampled_from(["rw", "rw", "r"])
        flags, seldom = st.booleans(), st.integers(0, 3).map(lambda number: number == 3)

        def kinds(*plain: str, nested: Sequence[str]) -> st.SearchStrategy[str]:
            return st.sampled_from([*plain, *(nested if nests else ())])

        class Machine(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                self.model = Model(suite, suite.probes)
                self.steps = 0
                self.transaction = self.model.iommu.transaction() if suite.together else nullcontext()
                self.transaction.__enter__()

            def teardown(self) -> None:
                for name, number in (("operations", self.model.operations), ("requests", self.model.requests)):
                    suite.counts[name] = suite.counts.get(name, 0) + number
                try:
                    self.transaction.__exit__(None, None, None)
                    assert self.model.iommu.check() == []
                finally:
                    self.model.close()

            @initialize(empty=st.integers(0, 3).map(lambda number: number == 3))
            def start(self, empty: bool) -> None:
                """Most walks begin in the middle of things."""
                if empty:
                    return
                for name, offset in (("d0", 0), ("p0", 16), ("p1", 32), ("d1", 48)):
                    if nests or name.startswith("d"):
                        self.model.create(name)
                        self.model.map(name, 0, 3, offset, "rw")
                        self.model.map(name, 3, 2, offset + 8, "rw")
                for name, slot in zip(("p0", "p1") if nests else ("d0", "d1"), suite.rids, strict=True):
                    self.model.attach(name, (slot, None), replace=False)
                for table, parent in (("t0", "p0"), ("t1", "p1"), ("t2", "p0")) if nests else ():
                    self.model.create_table(table, parent)
                    self.model.map_table(table, 1, 3, int(table[1:]), "rw")
                for table, place in zip(("t0", "t2"), self.model.all_slots[1::3] if nests else (), strict=False):
                    self.model.bind(table, place)

            @invariant()
            def rows_agree(self) -> None:
                self.model.compare()

            @invariant()
            def requests_go_where_they_should(self) -> None:
                self.steps += 1
                every = self.model.all_slots
                for number in range(min(suite.probes, len(every))):
                    slot = every[(self.steps + number) % len(every)]
                    self.model.request(slot, self.steps % PAGES, write=self.steps % 3 == 0)

            # Few rules with many kinds: hypothesis leaves whole rules out of most walks.

            @rule(
                kind=kinds("map", "map", "unmap", nested=("map_table", "map_table", "unmap_table")),
                name=domains, table=tables, first=pages, count=counts, to=st.integers(0, 48), prot=prots, whole=flags,
            )  # fmt: skip
            def mappings(  # noqa: PLR0917
                self, kind: str, name: str, table: str, first: int, count: int, to: int, prot: str, whole: bool
            ) -> None:
                match kind:
                    case "map":
                        self.model.map(name, first, count, to, prot)
                    case "unmap":
                        ranges = self.model.domains[name].ranges if name in self.model.domains else {}
                        if whole and ranges:
                            first = sorted(ranges)[first % len(ranges)]
                            count = ranges[first]
                        with self.model.watch(domain=name, pages=range(first, first + count)):
                            self.model.unmap(name, first, count)
                    case "map_table":
                        self.model.map_table(table, first, count, to % PAGES, prot)
                    case "unmap_table":
                        with self.model.watch(table=table, pages=range(first, first + count)):
                            self.model.unmap_table(table, first, count)

            @rule(
                kind=kinds("attach", "attach", "detach", nested=("bind", "bind", "bind", "unbind")),
                name=domains, table=tables, slot=slots, flag=flags, wrong=seldom,
            )  # fmt: skip
            def attachments(  # noqa: PLR0917
                self, kind: str, name: str, table: str, slot: Place, flag: bool, wrong: bool
            ) -> None:
                held = self.model.slots.get(slot)
                if held and not wrong and kind in ("detach", "unbind"):
                    name = held.domain
                with self.model.watch(slot=slot):
                    match kind:
                        case "attach":
                            self.model.attach(name, slot, replace=flag)
                        case "detach":
                            self.model.detach(name, slot, force=flag)
                        case "bind":
                            self.model.bind(table, slot)
                        case "unbind":
                            self.model.unbind(name, slot)

            @rule(
                kind=kinds("create", "create", "destroy", nested=("create_table", "create_table", "destroy_table")),
                name=domains, table=tables, force=seldom,
            )  # fmt: skip
            def objects(self, kind: str, name: str, table: str, force: bool) -> None:
                match kind:
                    case "create":
                        self.model.create(name)
                    case "destroy":
                        with self.model.watch(domain=name):
                            self.model.destroy(name, force=force)
                    case "create_table":
                        self.model.create_table(table, name)
                    case "destroy_table":
                        with self.model.watch(table=table):
                            self.model.destroy_table(table, force=force)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=self.steps,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
