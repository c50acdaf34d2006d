# SPDX-License-Identifier: Apache-2.0
"""Drivers that do something wrong: commands left out, changed or in the wrong order, structures written badly."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from iommuctl.formats.bits import Layout
from iommuctl_vtd.commands import CommandQueue
from iommuctl_vtd.driver import Driver
from iommuctl_vtd.invalidation import DESCRIPTORS

Sabotage = Callable[[], contextlib.AbstractContextManager[None]]


def _layout(raw: int) -> type[Layout]:
    return DESCRIPTORS[raw & 0xF]


def edited(edit: Callable[[int], int | None]) -> Sabotage:
    """Each descriptor is what `edit` makes of it; None leaves it out."""

    @contextlib.contextmanager
    def sabotage() -> Iterator[None]:
        right = CommandQueue.submit

        def submit(queue: CommandQueue, descriptors: Iterable[int]) -> None:
            right(queue, [new for raw in descriptors if (new := edit(raw)) is not None])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CommandQueue, "submit", submit)
            yield

    return sabotage


def without(*layouts: type[Layout]) -> Sabotage:
    """No descriptors of these kinds."""
    return edited(lambda raw: None if _layout(raw) in layouts else raw)


def with_fields(layout: type[Layout], **change: Callable[[int], int]) -> Sabotage:
    """Fields of all descriptors of a kind get other values."""

    def edit(raw: int) -> int:
        if _layout(raw) is not layout:
            return raw
        values = layout.values(raw)
        return layout.encode(**{**values, **{name: to(values[name]) for name, to in change.items()}})

    return edited(edit)


def exchanged(layout: type[Layout], new: Callable[[dict[str, int]], int]) -> Sabotage:
    """Descriptors of a kind give way to others, made of their fields."""
    return edited(lambda raw: new(layout.values(raw)) if _layout(raw) is layout else raw)


@contextlib.contextmanager
def devices_first() -> Iterator[None]:
    """The device TLBs are told before the unit."""
    right = CommandQueue.submit
    held: list[list[int]] = []

    def submit(queue: CommandQueue, descriptors: Iterable[int]) -> None:
        # The driver submits what is for the unit, and then what is for devices.
        batch = list(descriptors)
        if held:
            right(queue, batch)
            right(queue, held.pop())
        else:
            held.append(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandQueue, "submit", submit)
        yield


@contextlib.contextmanager
def late() -> Iterator[None]:
    """Tables are freed first, and the caches are told then."""
    right, right_unmap = Driver.announce, Driver.unmap
    late: list[Any] = []

    def unmap(driver: Driver, *arguments: Any) -> None:
        right_unmap(driver, *arguments)
        right(driver, *late.pop())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "announce", lambda _driver, *changes: late.append(changes))
        patch.setattr(Driver, "unmap", unmap)
        yield


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
