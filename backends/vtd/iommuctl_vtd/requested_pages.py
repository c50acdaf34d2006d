# SPDX-License-Identifier: Apache-2.0
"""The page request queue as a driver sets it up and reads it, and how it answers: VT-d 4.1 sections 6.5.2 and 7.4."""

from iommuctl.architecture import PageRequest, PageResponse, Unit
from iommuctl.formats.memory import PAGE, Memory
from iommuctl.model import Rid, Slot
from iommuctl.page_groups import whole_groups
from iommuctl_vtd import page_request
from iommuctl_vtd.invalidation import RESPONSES, PageGroupResponse
from iommuctl_vtd.page_request import PQA, PQH, PQT, PRS

_DESCRIPTOR = page_request.PageRequest.bits // 8
_CODES = {response: code for code, response in RESPONSES.items()}


def start_queue(unit: Unit, address: int) -> None:
    """Give the unit a queue of one page, which is empty."""
    unit.write_register("PQH", 0)
    unit.write_register("PQT", 0)
    unit.write_register("PQA", PQA.encode(PQS=0, PQA=address))


def has_queue(unit: Unit) -> bool:
    """Whether the unit has the registers of a queue."""
    return "PQA" in unit.registers()


def page_queue(unit: Unit) -> int:
    """Where the queue lies; 0 before there is one."""
    return PQA.PQA.get(unit.registers().get("PQA", 0))


def take_page_requests(memory: Memory, unit: Unit) -> tuple[list[PageRequest], bool]:
    """Read what the queue holds, the oldest first, and make room; see `iommuctl.architecture.PageRequests`.

    PRS.PRO is cleared once the queue is empty, as the unit queues nothing until then.
    """
    unit.write_register("PRS", PRS.PPR.mask)
    queue = unit.read_register("PQA")
    base, size = PQA.PQA.get(queue), PAGE << PQA.PQS.get(queue)
    head, tail = (field.get(unit.read_register(field.name)) % size for field in (PQH.PQH, PQT.PQT))
    requests = []
    while head != tail:
        requests.append(requested(int.from_bytes(memory.read(base + head, _DESCRIPTOR), "little")))
        head = (head + _DESCRIPTOR) % size
    unit.write_register("PQH", PQH.encode(PQH=head))
    overflow = bool(PRS.PRO.get(unit.read_register("PRS")))
    if overflow:
        unit.write_register("PRS", PRS.PRO.mask)
        requests = whole_groups(requests)
    return requests, overflow


def requested(raw: int) -> PageRequest:
    """What a descriptor says, whatever it holds; the unit is that of segment 0."""
    layout = page_request.PageRequest
    pasid = layout.PASID.get(raw) if layout.PP.get(raw) else None
    return PageRequest(
        Slot(Rid.of(layout.RID.get(raw)), pasid),
        layout.ADDR.get(raw),
        read=bool(layout.R.get(raw)),
        write=bool(layout.W.get(raw)),
        group=layout.PRGI.get(raw),
        last=bool(layout.LPIG.get(raw)),
        execute=bool(layout.EXE.get(raw)),
        privileged=bool(layout.PMR.get(raw)),
    )


def answer(slot: Slot, group: int, response: PageResponse) -> int:
    """The descriptor that answers a group."""
    return PageGroupResponse.encode(
        PP=slot.pasid is not None,
        RC=_CODES[response],
        RID=slot.rid.source_id,
        PASID=slot.pasid or 0,
        PRGI=group,
    )
