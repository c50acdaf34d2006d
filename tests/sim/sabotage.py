# SPDX-License-Identifier: Apache-2.0
"""Drivers that do something wrong: commands left out, changed or in the wrong order, structures written badly."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from iommuctl.formats.bits import Layout
from iommuctl_smmuv3.commands import COMMANDS
from iommuctl_smmuv3.submission import submit as right_smmuv3
from iommuctl_vtd.commands import CommandQueue
from iommuctl_vtd.invalidation import DESCRIPTORS

Sabotage = Callable[[], contextlib.AbstractContextManager[None]]
Send = Callable[[list[int]], None]


def _is(raw: int, *layouts: type[Layout]) -> bool:
    """Whether a command is of one of these kinds, all of one architecture."""
    if layouts[0].name.startswith("vtd."):
        return DESCRIPTORS[raw & 0xF] in layouts
    return COMMANDS[raw & 0xFF] in layouts


@contextlib.contextmanager
def _submitting(wrong: Callable[[Send, list[int]], None]) -> Iterator[None]:
    """What drivers want to queue goes to `wrong`, with the way to queue it."""
    right = CommandQueue.submit

    def submit(queue: CommandQueue, descriptors: Iterable[int]) -> None:
        wrong(partial(right, queue), [*descriptors])

    def submit_smmuv3(context: Any, unit: Any, features: Any, commands: Iterable[int]) -> None:
        wrong(partial(right_smmuv3, context, unit, features), [*commands])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandQueue, "submit", submit)
        patch.setattr("iommuctl_smmuv3.driver.submit", submit_smmuv3)
        yield


def edited(edit: Callable[[int], int | None]) -> Sabotage:
    """Each command is what `edit` makes of it; None leaves it out."""
    return lambda: _submitting(lambda send, batch: send([new for raw in batch if (new := edit(raw)) is not None]))


def without(*layouts: type[Layout]) -> Sabotage:
    """No commands of these kinds."""
    return edited(lambda raw: None if _is(raw, *layouts) else raw)


def with_fields(layout: type[Layout], **change: Callable[[int], int]) -> Sabotage:
    """Fields of all commands of a kind get other values."""

    def edit(raw: int) -> int:
        if not _is(raw, layout):
            return raw
        values = layout.values(raw)
        return layout.encode(**{**values, **{name: to(values[name]) for name, to in change.items()}})

    return edited(edit)


def exchanged(layout: type[Layout], new: Callable[[dict[str, int]], int]) -> Sabotage:
    """Commands of a kind give way to others, made of their fields."""
    return edited(lambda raw: new(layout.values(raw)) if _is(raw, layout) else raw)


def devices_first(*kinds: type[Layout]) -> Sabotage:
    """The device TLBs are told, by commands of these kinds, before the unit."""

    @contextlib.contextmanager
    def sabotage() -> Iterator[None]:
        held: list[tuple[Send, list[int]]] = []

        def submit(send: Send, batch: list[int]) -> None:
            # The driver submits what is for the unit, and last what is for devices.
            held.append((send, batch))
            if _is(batch[0], *kinds):
                for one, words in reversed(held):
                    one(words)
                held.clear()

        with _submitting(submit):
            yield
        assert not held

    return sabotage


def late(driver: Any) -> Sabotage:
    """With this class of drivers, tables are freed first, and the caches are told then."""

    @contextlib.contextmanager
    def sabotage() -> Iterator[None]:
        right, right_unmap = driver.announce, driver.unmap
        held: list[Any] = []

        def unmap(one: Any, *arguments: Any) -> None:
            right_unmap(one, *arguments)
            right(one, *held.pop())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "announce", lambda _one, *changes: held.append(changes))
            patch.setattr(driver, "unmap", unmap)
            yield

    return sabotage


def written(owner: object, method: str, wrong: Callable[..., Any]) -> Sabotage:
    """A method of the driver's hands on the tables is another."""

    @contextlib.contextmanager
    def sabotage() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, method, wrong)
            yield

    return sabotage


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """The driver as it is."""
    yield
