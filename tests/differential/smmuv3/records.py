# SPDX-License-Identifier: Apache-2.0
"""What a walk can end in besides an address, with the event record: IHI0070 G.b section 7.3."""

from typing import NamedTuple

from iommuctl_smmuv3.configuration_events import CBadCd, CBadSte, CBadStreamid, FCdFetch, FSteFetch
from iommuctl_smmuv3.events import CLASS_TT, EVENTS, FAccess, FAddrSize, FPermission, FTranslation, FWalkEabt
from tests.differential.outcome import Faulted

TRANSLATION, ADDR_SIZE, ACCESS, PERMISSION = (
    layout.Event.value for layout in (FTranslation, FAddrSize, FAccess, FPermission)
)
WALK_EABT = FWalkEabt.Event.value


_FETCHED = (1 << 56) - 8
"""The bits of FetchAddr."""


class Request(NamedTuple):
    """A device's request. All devices of the harness make unprivileged requests for data, without SubstreamID."""

    stream_id: int
    iova: int
    write: bool


class Refused(Exception):
    """A walk has ended; `faulted` says in what."""

    def __init__(self, faulted: Faulted) -> None:
        super().__init__(str(faulted))
        self.faulted = faulted


class Unsafe(Exception):
    """QEMU's way leads to its end, or to what is not memory: such a request is not made."""


def bad_stream_id(request: Request, *, recorded: bool) -> Refused:
    raw = CBadStreamid.encode(StreamID=request.stream_id)
    return Refused(Faulted(CBadStreamid.Event.value, raw if recorded else None))


def bad_ste(request: Request) -> Refused:
    return Refused(Faulted(CBadSte.Event.value, CBadSte.encode(StreamID=request.stream_id)))


def bad_cd(request: Request) -> Refused:
    return Refused(Faulted(CBadCd.Event.value, CBadCd.encode(StreamID=request.stream_id)))


def ste_fetch(request: Request, address: int) -> Refused:
    raw = FSteFetch.encode(StreamID=request.stream_id, FetchAddr=address & _FETCHED) | address >> 56 << 248
    return Refused(Faulted(FSteFetch.Event.value, raw))


def cd_fetch(request: Request, address: int, *, misplaced: bool) -> Refused:
    """With `misplaced`, the address is where other records have InputAddr."""
    raw = FCdFetch.encode(StreamID=request.stream_id, FetchAddr=0 if misplaced else address)
    return Refused(Faulted(FCdFetch.Event.value, raw | (address << 128 if misplaced else 0)))


ABORTED = Faulted(None, None)
"""An STE that aborts: no event."""


class Place(NamedTuple):
    """Where a translation went wrong: fields of its record. `ipa` may have bits that IPA has not."""

    stage_2: bool
    cls: int
    ipa: int = 0


def translation(
    code: int, request: Request, place: Place, *, recorded: bool, read: bool | None = None, table_read: bool = False
) -> Refused:
    """A fault of a walk; `read` is RnW, where that is not the request's own, and `table_read` is TTRnW."""
    layout = EVENTS[code]
    rnw = not request.write if read is None else read
    raw = layout.encode(
        StreamID=request.stream_id, RnW=rnw, S2=place.stage_2, CLASS=place.cls, InputAddr=request.iova,
        IPA=place.ipa & ((1 << 56) - (1 << 12)),
    )  # fmt: skip
    raw |= (place.ipa & 0xFFF | place.ipa >> 56 << 56) << 192
    raw |= FPermission.TTRnW.put(table_read)
    return Refused(Faulted(code, raw if recorded else None))


def external_abort(request: Request, place: Place, address: int, *, read: bool | None = None) -> Refused:
    """A descriptor that could not be read. For stage 1, CLASS is that of a table."""
    rnw = not request.write if read is None else read
    raw = FWalkEabt.encode(
        StreamID=request.stream_id, RnW=rnw, S2=place.stage_2, CLASS=place.cls if place.stage_2 else CLASS_TT,
        InputAddr=request.iova, FetchAddr=address & _FETCHED,
    )  # fmt: skip
    return Refused(Faulted(WALK_EABT, raw))
