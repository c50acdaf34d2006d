# SPDX-License-Identifier: Apache-2.0
"""The PRI queue as a driver reads it, and how it answers: IHI0070 G.b sections 3.5, 4.5 and 8."""

from iommuctl.architecture import PageRequest, PageResponse, Unit
from iommuctl.formats.memory import Memory
from iommuctl.model import Rid, Slot
from iommuctl.page_groups import whole_groups
from iommuctl_smmuv3 import page_request
from iommuctl_smmuv3.commands import RESPONSES, PriResp
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.positions import Ring
from iommuctl_smmuv3.queue_registers import PriqBase, PriqCons, PriqProd

_ENTRY = page_request.PageRequest.bits // 8
_CODES = {response: code for code, response in RESPONSES.items()}


def take_page_requests(memory: Memory, unit: Unit, features: Features) -> tuple[list[PageRequest], bool]:
    """Read what the queue holds, the oldest first, and make room; see `iommuctl.architecture.PageRequests`.

    An overflow is acknowledged, as the unit queues nothing until then.
    """
    base, produced = unit.read_register("PRIQ_BASE"), unit.read_register("PRIQ_PROD")
    consumed = unit.read_register("PRIQ_CONS")
    ring = Ring(PriqBase.ADDR.get(base), PriqBase.LOG2SIZE.get(base), features.priq_bits, _ENTRY)
    position, requests = PriqCons.RD.get(consumed), []
    while not ring.same(position, produced):
        requests.append(requested(int.from_bytes(memory.read(ring.place(position), _ENTRY), "little")))
        position = ring.after(position)
    flag = PriqProd.OVFLG.get(produced)
    unit.write_register("PRIQ_CONS", PriqCons.encode(RD=position, OVACKFLG=flag))
    overflow = flag != PriqCons.OVACKFLG.get(consumed)
    return whole_groups(requests) if overflow else requests, overflow


def requested(raw: int) -> PageRequest:
    """What an entry says, whatever it holds. StreamIDs stand for RIDs, with the segment above the source id."""
    layout = page_request.PageRequest
    pasid = layout.SubstreamID.get(raw) if layout.SSV.get(raw) else None
    return PageRequest(
        Slot(Rid.of(layout.StreamID.get(raw)), pasid),
        layout.Addr.get(raw),
        read=bool(layout.Read.get(raw)),
        write=bool(layout.Write.get(raw)),
        group=layout.PRGIndex.get(raw),
        last=bool(layout.Last.get(raw)),
        execute=bool(layout.Exec.get(raw)),
        privileged=bool(layout.Priv.get(raw)),
    )


def answer(slot: Slot, group: int, response: PageResponse) -> int:
    """The command that answers a group."""
    return PriResp.encode(
        SSV=slot.pasid is not None,
        SubstreamID=slot.pasid or 0,
        StreamID=slot.rid.source_id,
        PRGIndex=group,
        Resp=_CODES[response],
    )
