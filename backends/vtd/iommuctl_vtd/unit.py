# SPDX-License-Identifier: Apache-2.0
"""The hardware side: one VT-d unit with its registers, its invalidation queue in memory, and its IOTLB."""

from collections.abc import Mapping

from iommuctl.errors import Unsupported, Usage
from iommuctl.formats.memory import read_word, write_word
from iommuctl.hookspecs import Context
from iommuctl.model import Access, Fault, Slot, Translation
from iommuctl_vtd.capability import (
    DEFAULT_CAP,
    DEFAULT_ECAP,
    DEFAULT_HAW,
    INTERRUPT_RANGE,
    LEGACY_MODE,
    SCALABLE_MODE,
    Capability,
    capability,
)
from iommuctl_vtd.fault_record import REASONS, FaultRecord
from iommuctl_vtd.iotlb import Iotlb, Tag
from iommuctl_vtd.legacy_walk import LegacyWalk
from iommuctl_vtd.pasid_entry import PASS_THROUGH
from iommuctl_vtd.queue import Queue
from iommuctl_vtd.registers import CAP, FSTS, GCMD, GSTS, RTADDR
from iommuctl_vtd.scalable_walk import ScalableWalk
from iommuctl_vtd.walk import Mapped, Refused, Request, Rights, Walk

REGISTERS = "vtd.register"
LATCHED_ROOT = "latched RTADDR"
NEXT_RECORD = "next fault record"
MODES = ("scalable", "legacy")
_PLAIN = ("RTADDR", "IQA", "FECTL")


class Unit:
    """A unit whose registers and caches are rows of `context` and whose structures are in its memory."""

    def __init__(self, context: Context) -> None:
        self._memory = context.memory
        self._rows = context.rows
        self._iotlb = Iotlb(context.rows)
        self._capability: Capability | None = None

    @staticmethod
    def reset(context: Context, options: Mapping[str, str]) -> None:
        """Power on. Options: `haw` (host address bits), `cap` and `ecap` (register values), and the driver's `mode`."""
        values = {"haw": DEFAULT_HAW, "cap": DEFAULT_CAP, "ecap": DEFAULT_ECAP}
        mode = options.get("mode", MODES[0])
        if mode not in MODES:
            raise Usage(f"no mode {mode!r}", hint=f"VT-d has {' and '.join(MODES)}")
        for name, text in options.items():
            if name == "mode":
                continue
            if name not in values:
                raise Usage(f"no option {name!r}", hint=f"a VT-d unit has {', '.join(values)}, mode")
            try:
                values[name] = int(text, 0)
            except ValueError:
                raise Usage(f"option {name}={text} is not a number") from None
        if not 32 <= values["haw"] <= 52 or not 0 <= values["cap"] >> 64 == values["ecap"] >> 64 == 0:
            raise Usage("an option is out of range", because="haw is 32 to 52, cap and ecap have 64 bits")
        registers = {"CAP": values["cap"], "ECAP": values["ecap"], "GSTS": 0, "RTADDR": 0, "IQA": 0, "IQH": 0, "IQT": 0}
        registers |= {"FSTS": 0, "FECTL": 1 << 31, "IQERCD": 0}
        registers |= {f"FRCD{index}": 0 for index in range(CAP.NFR.get(values["cap"]) + 1)}
        for name, value in registers.items():
            context.rows.put(REGISTERS, name, value)
        context.rows.put("vtd", "mode", mode)
        context.rows.put("vtd", "haw", values["haw"])
        context.rows.put("vtd", LATCHED_ROOT, 0)
        context.rows.put("vtd", NEXT_RECORD, 0)

    @property
    def capability(self) -> Capability:
        """What the unit can do."""
        if self._capability is None:
            haw = self._rows.get("vtd", "haw")
            self._capability = capability(self.read_register("CAP"), self.read_register("ECAP"), haw)
        return self._capability

    # Registers

    def registers(self) -> dict[str, int]:
        return dict(self._rows.scan(REGISTERS))

    def read_register(self, name: str) -> int:
        value: int | None = self._rows.get(REGISTERS, name)
        if value is None:
            raise Unsupported(f"the unit has no register {name}")
        return value

    def write_register(self, name: str, value: int) -> None:
        if name == "GCMD":
            self._command(value)
        elif name == "IQT":
            self._put("IQT", value)
            self._run_queue()
        elif name == "FSTS":
            self._clear_status(value)
        elif name.startswith("FRCD"):
            self._free_record(name, value)
        elif name in _PLAIN:
            self._put(name, value)
        else:
            raise Unsupported(f"register {name} cannot be written")

    def _put(self, name: str, value: int) -> None:
        self._rows.put(REGISTERS, name, value)

    def _command(self, value: int) -> None:
        """GCMD: VT-d 4.1 section 11.4.4. Level bits follow the value, one-shot bits act."""
        status = GSTS.encode(
            TES=GCMD.TE.get(value),
            QIES=GCMD.QIE.get(value),
            RTPS=GCMD.SRTP.get(value) | GSTS.RTPS.get(self.read_register("GSTS")),
        )
        if GCMD.SRTP.get(value):
            self._rows.put("vtd", LATCHED_ROOT, self.read_register("RTADDR"))
            if CAP.ESRTPS.get(self.capability.cap):
                self._iotlb.drop_all()
        if not GCMD.QIE.get(value):
            self._put("IQH", 0)
        self._put("GSTS", status)

    def _clear_status(self, value: int) -> None:
        """FSTS: writing 1 clears. PPF and FRI tell of the records and go with them."""
        status = self.read_register("FSTS")
        self._put("FSTS", status & ~(value & (FSTS.PFO.mask | FSTS.IQE.mask)))
        if status & value & FSTS.IQE.mask:
            # The descriptor that stopped the queue is fetched again.
            self._run_queue()

    def _run_queue(self) -> None:
        if not GSTS.QIES.get(self.read_register("GSTS")) or FSTS.IQE.get(self.read_register("FSTS")):
            return
        queue = Queue(self._memory, self._iotlb, self.capability, self.read_register("IQA"))
        root = self._rows.get("vtd", LATCHED_ROOT)
        head, error = queue.run(self.read_register("IQH"), self.read_register("IQT"), root)
        self._put("IQH", head)
        self._put("IQERCD", error)
        if error:
            self._put("FSTS", self.read_register("FSTS") | FSTS.IQE.mask)

    # Requests

    def request(self, slot: Slot, iova: int, access: Access, *, privileged: bool) -> tuple[Translation, bool, bool]:
        walker, request = self._start(slot, iova, access, privileged=privileged)
        if not self._translating():
            return self._answer(request, access, walker, Mapped(iova, 4096, _ALL, True), None), False, False
        try:
            walker.find_tables()
            tag = Tag(walker.did, walker.pgtt, walker.pasid)
            cached = self._iotlb.find(tag, iova)
            if cached and self._serves(cached, walker, write=request.write):
                return self._answer(request, access, walker, cached, None), True, self._is_stale(request, cached)
            mapped = walker.translate()
        except Refused as refused:
            self._record(request, walker, refused.code)
            return self._answer(request, access, walker, None, refused.code), False, False
        for address, bits in walker.updates:
            write_word(self._memory, address, read_word(self._memory, address) | bits)
        if tag.pgtt != PASS_THROUGH:
            self._iotlb.fill(tag, iova, mapped)
        return self._answer(request, access, walker, mapped, None), False, False

    def walk(self, slot: Slot, iova: int, access: Access, *, privileged: bool) -> Translation:
        walker, request = self._start(slot, iova, access, privileged=privileged)
        try:
            if not self._translating():
                return self._answer(request, access, walker, Mapped(iova, 4096, _ALL, True), None)
            walker.find_tables()
            return self._answer(request, access, walker, walker.translate(), None)
        except Refused as refused:
            return self._answer(request, access, walker, None, refused.code)

    def caches(self) -> dict[str, int]:
        return {"iotlb": self._iotlb.size()}

    def _start(self, slot: Slot, iova: int, access: Access, *, privileged: bool) -> tuple[Walk, Request]:
        if slot.pasid is None and INTERRUPT_RANGE[0] <= iova <= INTERRUPT_RANGE[1]:
            raise Unsupported(
                f"address {iova:#x} is in the interrupt range",
                because="a request there without PASID is an interrupt, which the unit does not translate",
            )
        # Revision 4 has no execute requests: an instruction fetch is a read.
        request = Request(slot, iova, access == "w", privileged and slot.pasid is not None)
        return self._walker(request), request

    def _walker(self, request: Request) -> Walk:
        root = self._rows.get("vtd", LATCHED_ROOT)
        mode = _MODES.get(RTADDR.TTM.get(root), _InvalidMode)
        return mode(self._memory, self.capability, root, request)

    def _translating(self) -> bool:
        return bool(GSTS.TES.get(self.read_register("GSTS")))

    def _serves(self, cached: Mapped, walker: Walk, *, write: bool) -> bool:
        """Whether a cached translation will do; otherwise the tables are asked, which may allow more by now."""
        denied = cached.rights.denied(write=write, privileged=walker.privileged, wpe=walker.wpe)
        return not denied and (cached.dirty or not write)

    def _is_stale(self, request: Request, cached: Mapped) -> bool:
        """Whether the tables say something else than the cache, which hardware never tells."""
        walker = self._walker(request)
        try:
            walker.find_tables()
            return walker.translate().pa != cached.pa
        except Refused:
            return True

    def _answer(
        self, request: Request, access: Access, walker: Walk, mapped: Mapped | None, code: int | None
    ) -> Translation:
        slot, iova, steps = request.slot, request.iova, tuple(walker.trace)
        if code is not None:
            reason = REASONS[code]
            fault = Fault(code, reason.name, reason.sentence, slot.rid, slot.pasid, iova, access)
            return Translation(slot, iova, None, None, None, fault, steps)
        assert mapped
        prot = "".join(
            letter
            for letter, write in (("r", False), ("w", True))
            if not mapped.rights.denied(write=write, privileged=walker.privileged, wpe=walker.wpe)
        )
        return Translation(slot, iova, mapped.pa, mapped.page_size, prot, None, steps)

    # Fault records: VT-d 4.1 section 7.2.1

    def _record(self, request: Request, walker: Walk, code: int) -> None:
        status = self.read_register("FSTS")
        if (walker.fpd and REASONS[code].qualified) or FSTS.PFO.get(status):
            return
        index = self._rows.get("vtd", NEXT_RECORD)
        name = f"FRCD{index}"
        if FaultRecord.F.get(self.read_register(name)):
            self._put("FSTS", status | FSTS.PFO.mask)
            return
        slot = request.slot
        record = FaultRecord.encode(
            FI=request.iova & -4096,
            SID=slot.rid.source_id,
            PP=slot.pasid is not None,
            PV=slot.pasid or 0,
            PRIV=request.privileged,
            T1=not request.write,
            FR=code,
            F=1,
        )
        self._put(name, record)
        if not FSTS.PPF.get(status):
            self._put("FSTS", status & ~FSTS.FRI.mask | FSTS.encode(PPF=1, FRI=index))
        self._rows.put("vtd", NEXT_RECORD, (index + 1) % (CAP.NFR.get(self.capability.cap) + 1))

    def _free_record(self, name: str, value: int) -> None:
        self._put(name, self.read_register(name) & ~(value & FaultRecord.F.mask))
        records = range(CAP.NFR.get(self.capability.cap) + 1)
        if not any(FaultRecord.F.get(self.read_register(f"FRCD{index}")) for index in records):
            self._put("FSTS", self.read_register("FSTS") & ~(FSTS.PPF.mask | FSTS.FRI.mask))


class _InvalidMode(Walk):
    """RTADDR has a table mode that the unit does not know: every request faults."""

    def find_tables(self) -> None:
        raise Refused(0x30)

    def end(self) -> Mapped:
        raise Refused(0x30)


_ALL = Rights()
_MODES: dict[int, type[Walk]] = {LEGACY_MODE: LegacyWalk, SCALABLE_MODE: ScalableWalk}
