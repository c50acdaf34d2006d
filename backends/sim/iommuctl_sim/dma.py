# SPDX-License-Identifier: Apache-2.0
"""A device's DMA: real bytes, page by page through the unit, as far as the first fault."""

from iommuctl.architecture import Unit
from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import PAGE, Memory
from iommuctl.hookspecs import DmaRequest
from iommuctl.model import Access, DmaResult, Fault, Piece


def run(unit: Unit, memory: Memory, request: DmaRequest) -> DmaResult:
    """Carry a DMA out. What came before a fault has been done, as on a bus."""
    access: Access = "r" if request.data is None else "w"
    pieces: list[Piece] = []
    data = bytearray()
    fault: Fault | None = None
    stale = False
    hits = misses = 0
    offset = 0
    while offset < request.size:
        iova = request.iova + offset
        length = min(request.size - offset, PAGE - iova % PAGE)
        answer, hit, was_stale = unit.request(request.slot, iova, access, privileged=request.privileged)
        hits, misses, stale = hits + hit, misses + (not hit), stale or was_stale
        if answer.pa is None:
            fault = answer.fault
            break
        _transfer(memory, answer.pa, length, request, offset, data)
        _add(pieces, Piece(iova, answer.pa, length))
        offset += length
    return DmaResult(tuple(pieces), bytes(data), fault, stale, hits, misses)


def _transfer(memory: Memory, pa: int, length: int, request: DmaRequest, offset: int, data: bytearray) -> None:  # noqa: PLR0917
    try:
        if request.data is None:
            data += memory.read(pa, length)
        else:
            memory.write(pa, request.data[offset : offset + length])
    except OutsideMemory:
        raise OutsideMemory(
            f"the DMA went to physical address {pa:#x}, where there is no memory",
            because="the translation allows it, but the machine has no RAM there",
            hint="`iommuctl sim show` tells where RAM is",
        ) from None


def _add(pieces: list[Piece], piece: Piece) -> None:
    """Join a piece with the last one where it continues it."""
    if pieces:
        last = pieces[-1]
        if last.pa + last.size == piece.pa:
            pieces[-1] = last._replace(size=last.size + piece.size)
            return
    pieces.append(piece)
