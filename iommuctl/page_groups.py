# SPDX-License-Identifier: Apache-2.0
"""Groups of page requests, as they are read out of a unit's queue."""

from collections.abc import Iterable

from iommuctl.architecture import PageRequest


def whole_groups(requests: Iterable[PageRequest]) -> list[PageRequest]:
    """The requests without those of groups whose last request is not among them. Stop markers are of no group."""
    kept: list[PageRequest] = []
    ended = set()
    for request in reversed([*requests]):
        group = request.slot, request.group
        if request.last and not request.stops:
            ended.add(group)
        if request.stops or group in ended:
            kept.append(request)
    return kept[::-1]
