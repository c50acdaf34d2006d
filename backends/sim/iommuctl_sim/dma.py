# SPDX-License-Identifier: Apache-2.0
"""A device's DMA: real bytes, page by page through the unit, as far as the first fault."""

from collections.abc import Sequence

from iommuctl.architecture import Recalled, Stale
from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import PAGE, Memory
from iommuctl.hookspecs import DmaRequest
from iommuctl.model import Access, DmaResult, Fault, Piece, RequestKind, Translation
from iommuctl_sim.device_tlb import Question, Told
from iommuctl_sim.system import System


class Dma:
    """One DMA in progress."""

    def __init__(self, system: System, request: DmaRequest) -> None:
        self._system = system
        self._request = request
        self._hits = self._misses = self._device_hits = self._device_misses = 0
        self._stale: list[Stale] = []
        self._wrong = False

    def run(self) -> DmaResult:
        """Carry it out. What came before a fault has been done, as on a bus."""
        request, memory = self._request, self._system.context.memory
        access: Access = "r" if request.data is None else "w"
        ask = self._translated if request.translated else self._untranslated
        pieces: list[Piece] = []
        data = bytearray()
        fault: Fault | None = None
        offset = 0
        while offset < request.size:
            iova = request.iova + offset
            length = min(request.size - offset, PAGE - iova % PAGE)
            answer = ask(Question(request.slot, iova, access, request.privileged), length)
            if answer.pa is None:
                fault = answer.fault
                break
            _transfer(memory, answer.pa, length, request, offset, data)
            _add(pieces, Piece(iova, answer.pa, length))
            offset += length
        stale, slot = self._stale, request.slot
        return DmaResult(
            tuple(pieces),
            bytes(data),
            fault,
            self._wrong,
            self._hits,
            self._misses,
            tuple(self._system.driver.missing(slot, stale)) if stale else (),
            tuple(self._system.sanitizer.explain(stale)) if stale else (),
            self._device_hits,
            self._device_misses,
        )

    def _untranslated(self, question: Question, size: int) -> Translation:
        """The unit translates."""
        slot, iova, access, privileged = question
        answer = self._system.unit.request(slot, iova, access, privileged=privileged, size=size)
        self._hits, self._misses = self._hits + answer.hit, self._misses + (not answer.hit)
        if not answer.hit:
            self._system.journal.follow(answer.translation.steps)
        self._judge(question, size, answer.translation, answer.recalled, translated=False)
        return answer.translation

    def _translated(self, question: Question, size: int) -> Translation:
        """The device translates, out of its own TLB, which it fills by asking the unit; then the unit lets it in."""
        slot, iova, access, privileged = question
        unit, tlbs = self._system.unit, self._system.tlbs
        recalled: tuple[Recalled, ...]
        if told := tlbs.find(question):
            self._device_hits += 1
            recalled = (Recalled("device_tlb", told.tag, told.made_of),)
        else:
            self._device_misses += 1
            answer = unit.request(slot, iova & -PAGE, access, privileged=privileged, kind="translation")
            self._hits, self._misses = self._hits + answer.hit, self._misses + (not answer.hit)
            self._system.journal.follow(answer.translation.steps)
            end, recalled = answer.translation, answer.recalled
            if end.pa is None:
                end = end._replace(iova=iova, fault=end.fault and end.fault._replace(iova=iova))
                self._judge(question, size, end, recalled, translated=True)
                return end
            told = Told(end.pa, end.prot or "", answer.tag, answer.made_of)
            tlbs.fill(question, told)
        pa = told.pa | iova % PAGE
        admission = unit.request(slot, pa, access, privileged=privileged, kind="translated", size=size)
        end = admission.translation._replace(iova=iova)
        if end.fault:
            end = end._replace(fault=end.fault._replace(iova=iova))
        self._judge(question, size, end, (*recalled, *admission.recalled), translated=True)
        return end

    def _judge(
        self, question: Question, size: int, answer: Translation, recalled: Sequence[Recalled], *, translated: bool
    ) -> None:
        kind: RequestKind = "translation" if translated else "untranslated"
        sanitizer = self._system.sanitizer
        stale = sanitizer.stale(question, size, kind, answer, recalled)
        if stale is None:
            return
        self._wrong = True
        if any(entry.cache == "device_tlb" for entry in stale):
            # If the unit still answers so, too, the device would only fetch it again.
            now = self._system.unit_now(question)
            stale = [*(sanitizer.stale(question, size, kind, now.translation, now.recalled) or ()), *stale]
        self._stale += stale


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
