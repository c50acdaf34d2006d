# SPDX-License-Identifier: Apache-2.0
"""Commands about page requests that are killed, transactions that fail: each group is answered once all the same."""

import random
from collections.abc import Callable

import pytest

from iommuctl import Iommu
from iommuctl.errors import IommuError
from iommuctl.model import Slot
from tests.kernel.asking import CHANGES, INVALID, QUEUE, SUCCESS, answered, ask, prepare, waiting
from tests.kernel.bench import PAGE, Bench
from tests.kernel.calls import READ, WRITE, Killed
from tests.kernel.host import ONE
from tests.thorough import THOROUGH


@pytest.fixture
def asked(bench: Bench) -> Bench:
    prepare(bench)
    return bench


def test_what_a_reader_took_out_that_died_is_answered_invalid(asked: Bench) -> None:
    iommu = asked.iommu
    for number in range(5):
        ask(asked, number)
    for group in iommu.faults().waiting[1:4:2]:
        iommu.respond(group.id, "success")
    told = answered(asked)[:]
    for number in range(10, 14):
        ask(asked, number)
    asked.kernel.kill(READ, made=True)
    iommu = asked.killed(iommu.faults)
    assert waiting(iommu) == [(None, 0), (None, 2), (None, 4)]
    assert answered(asked) == told + [(None, number, INVALID) for number in range(10, 14)]
    asked.assert_agrees()


def test_a_cookie_that_was_answered_and_given_again_is_not_answered_by_the_repair(asked: Bench) -> None:
    iommu = asked.iommu
    ask(asked, 1)
    (group,) = iommu.faults().waiting

    def change() -> None:
        with iommu.transaction():
            iommu.respond(group.id, "success")
            ask(asked, 2)
            assert [each.token for each in iommu.faults().waiting] == [group.token]
            iommu.domain_destroy("nobody")

    with pytest.raises(IommuError):
        change()
    assert answered(asked) == [(None, 1, SUCCESS)]
    assert waiting(iommu) == [(None, 2)]
    asked.assert_agrees()


COMMANDS: dict[str, Callable[[Iommu], object]] = {
    "list": lambda iommu: iommu.faults(),
    "respond": lambda iommu: iommu.respond(iommu.faults().waiting[0].id, "success"),
    "set": lambda iommu: iommu.handler_set("e", QUEUE),
    **{name: change for name, (_, change) in CHANGES.items() if name != "device unbind"},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_call_each_group_is_answered_once(asked: Bench, name: str) -> None:
    """And what waits then is what rows say waits, in a slot as it was or as it was to be."""
    asked.iommu.attach("e", ONE, pasid=9)
    deaths, number = 0, 0
    for call in range(CALLS):
        for made in (False, True):
            for pasid in (5, 6):
                number += 2
                ask(asked, number - 1, pasid=pasid)
                asked.iommu.faults()
                ask(asked, number, pasid=pasid)
            asked.kernel.kill(None, skip=call, made=made)
            try:
                COMMANDS[name](asked.iommu)
            except Killed:
                deaths += 1
            else:
                asked.reopen()
                asked.assert_agrees()
                assert deaths > 1
                _each_once(asked, number)
                return
            iommu = asked.reopen()
            iommu.faults()
            asked.assert_agrees()
            _as_before(iommu)
            asked.assert_agrees()
    raise AssertionError(f"more than {CALLS} calls")


CALLS = 30
"""More than any of these commands makes."""


def _as_before(iommu: Iommu) -> None:
    """What COMMANDS change."""
    iommu.handler_clear("e")
    iommu.handler_set("d", QUEUE)
    slots = {held.slot: held for held in iommu.slots(rid=ONE)}
    if not any(domain.name == "p" for domain in iommu.domains()):
        iommu.domain_create("p", nest_parent=True)
        iommu.handler_set("p", QUEUE)
    if (held := slots.get(Slot(ONE, 5))) is None or held.domain.name != "d":
        iommu.attach("d", ONE, pasid=5, replace=True)
    if Slot(ONE, 6) not in slots:
        iommu.bind_pgtable("p", ONE, addr=PAGE, pasid=6)


def _each_once(bench: Bench, number: int) -> None:
    told = answered(bench)
    bench.iommu.detach("d", ONE)
    bench.iommu.device_unbind(ONE, force=True)
    assert sorted(each for _, each, _ in told) == list(range(1, number + 1))


@pytest.mark.parametrize("seed", range(40 if THOROUGH else 1))
def test_any_commands_killed_anywhere(asked: Bench, seed: int) -> None:
    """Whatever is asked, done and killed, each group is answered once in the end."""
    chance, number = random.Random(seed), 0
    for _ in range(60 if THOROUGH else 25):
        served = [pasid for pasid in (None, 5, 6) if "queue" in (asked.rows("slot").get(str(Slot(ONE, pasid))) or {})]
        for pasid in chance.choices(served, k=chance.randrange(4)) if served else ():
            number += 1
            ask(asked, number, *(PAGE for _ in range(chance.randint(1, 3))), pasid=pasid)
        if chance.random() < 0.6:
            asked.kernel.kill(chance.choice([None, READ, WRITE]), skip=chance.randrange(9), made=chance.random() < 0.5)
        iommu = asked.iommu
        name = chance.choice(["list", "respond", "set", "detach", "replace", "unbind", "clear", "again"])
        try:
            if name == "again":
                _as_before(iommu)
            elif name != "respond" or iommu.faults().waiting:
                COMMANDS[name](iommu)
        except (Killed, IommuError):
            pass
        asked.reopen().faults()
        asked.assert_agrees()
    _as_before(asked.iommu)
    _each_once(asked, number)
