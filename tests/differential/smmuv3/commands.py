# SPDX-License-Identifier: Apache-2.0
"""At which commands a queue stops: IHI0070 G.b chapter 4 for a non-secure queue; and at which QEMU's does.

A rule takes a command and what the unit can do.
"""

from collections.abc import Callable, Mapping, Sequence

from iommuctl_smmuv3.features import TERMINATE_ONLY, Features
from tests.differential.plans import BRIDGES, DEVICES

CERROR_ILL = 1
_SSEC = 1 << 10
_HINTS, _STREAMS = (0x01, 0x02), (0x03, 0x04)
_CDS = (0x05, 0x06)
_STAGE_1, _STAGE_2, _EL2, _EL3 = range(0x10, 0x14), (0x28, 0x2A), range(0x20, 0x24), (0x18, 0x1A)
_NSNH_ALL, _ATC_INV, _PRI_RESP, _STALLS, _SYNC = 0x30, 0x40, 0x41, (0x44, 0x45), 0x46
_RANGES = (0x12, 0x13, 0x2A)
_WITH_SSEC = (*_HINTS, *_STREAMS, *_CDS, *_STALLS)
"""The others have a reserved bit there."""

_FUNCTIONS = {0, *(rid.source_id for rid, _ in (*DEVICES, *BRIDGES))}
"""StreamIDs of the machine's functions; the first one is the host bridge."""

Stops = tuple[tuple[int, int], ...]
"""Numbers of commands, and what CMDQ_CONS.ERR says of each."""


def _exists(code: int, features: Features) -> bool:
    if code in (*_CDS, *_STAGE_1):
        return features.s1p
    if code in _STAGE_2:
        return features.s2p
    if code in _EL2:
        return features.hyp
    if code in _STALLS:
        return features.stall_model != TERMINATE_ONLY
    if code in (_ATC_INV, _PRI_RESP):
        return features.ats if code == _ATC_INV else features.pri
    return code in (*_HINTS, *_STREAMS, _NSNH_ALL, _SYNC)


def _empty_range(raw: int, features: Features) -> bool:
    """TG without anything that says how much."""
    tg, ttl, others = raw >> 74 & 3, raw >> 72 & 3, raw & (0x1F << 12 | 0x3F << 20)
    return raw & 0xFF in _RANGES and features.ril and bool(tg) and not others and (not ttl or (tg == 2 and ttl == 1))


def _no_signal(raw: int, features: Features) -> bool:
    return raw & 0xFF == _SYNC and raw >> 12 & 3 == 3


def _is_secure(raw: int) -> bool:
    """SSec is 1, which a non-secure queue cannot ask for."""
    return bool(raw & _SSEC) and raw & 0xFF in _WITH_SSEC


def is_refused(raw: int, features: Features) -> bool:
    """Whether a unit that follows the specification stops at a command. Reserved bits are ignored."""
    if not _exists(raw & 0xFF, features) or _is_secure(raw):
        return True
    return _empty_range(raw, features) or _no_signal(raw, features)


def _accepts_ssec(raw: int, features: Features) -> bool:
    return _is_secure(raw) and raw & 0xFF not in (*_STREAMS, *_CDS)


def _accepts_cds(raw: int, features: Features) -> bool:
    known = raw >> 32 & 0xFFFF in _FUNCTIONS
    return raw & 0xFF in _CDS and not features.s1p and not _is_secure(raw) and not known


def _accepts_missing(raw: int, features: Features) -> bool:
    return raw & 0xFF in (*_EL2, *_EL3, _ATC_INV, _PRI_RESP, *_STALLS)


ACCEPTED: Mapping[str, Callable[[int, Features], bool]] = {
    "ssec": _accepts_ssec,
    "cds-without-stage-1": _accepts_cds,
    "missing-commands": _accepts_missing,
    "empty-ranges": _empty_range,
    "sync-signal": _no_signal,
}
"""By the name of a deviation, whether a command is taken that would be refused for that reason."""


def specified(words: Sequence[int], features: Features) -> Stops:
    """At which of these commands a unit stops that follows the specification."""
    return tuple((number, CERROR_ILL) for number, raw in enumerate(words) if is_refused(raw, features))


def theirs(words: Sequence[int], features: Features, listed: Mapping[str, object]) -> tuple[Stops, tuple[str, ...]]:
    """At which of these commands QEMU stops, and the deviations that make it differ."""
    stops, names = [], []
    for number, _ in specified(words, features):
        reasons = _reasons(words[number], features)
        if reasons and all(name in listed for name in reasons):
            names += reasons
        else:
            stops.append((number, CERROR_ILL))
    return tuple(stops), tuple(dict.fromkeys(names))


def _reasons(raw: int, features: Features) -> list[str]:
    """The deviations by which QEMU takes a command that is refused, where they are enough."""
    found = [name for name, rule in ACCEPTED.items() if rule(raw, features)]
    exists = _exists(raw & 0xFF, features) or {"cds-without-stage-1", "missing-commands"} & {*found}
    return found if exists and ("ssec" in found or not _is_secure(raw)) else []
