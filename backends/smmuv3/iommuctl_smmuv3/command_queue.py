# SPDX-License-Identifier: Apache-2.0
"""The command queue as the unit consumes it: a ring in memory. IHI0070 G.b chapter 4."""

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from iommuctl.architecture import Bus
from iommuctl.errors import OutsideMemory
from iommuctl.formats.memory import Memory
from iommuctl.model import MAX_ADDRESS
from iommuctl_smmuv3 import tlb_commands as tlbi
from iommuctl_smmuv3.commands import COMMANDS, RESPONSES, WHOLE_ADDRESS_SPACE, AtcInv, PriResp, Resume, StallTerm, Sync
from iommuctl_smmuv3.configuration_commands import EVERY_STREAM, CfgiCd, CfgiCdAll, CfgiSte, CfgiSteRange, CfgiVmsPidm
from iommuctl_smmuv3.event_queue import EventQueue
from iommuctl_smmuv3.features import TERMINATE_ONLY, Features
from iommuctl_smmuv3.positions import Ring
from iommuctl_smmuv3.queue_registers import CmdqBase
from iommuctl_smmuv3.tlb import EL2, EL2_E2H, GLOBAL, IPA, VA, Block, Tag
from iommuctl_smmuv3.visits import Caches

CERROR_ILL, CERROR_ABT, CERROR_ATC_INV_SYNC = 1, 2, 3
"""Values of CMDQ_CONS.ERR."""
_SSEC = 1 << 10
_COMMAND = 16
_ILLEGAL_CS, _ILLEGAL_RESP = 3, 3
_LARGEST_SCALE = 39
_SCALE_WITHOUT_DS = 0x1F
_RESERVED_OF_IPA = tlbi.TlbiNhVa.Addr.mask & ~tlbi.TlbiS2Ipa.Addr.mask
_GRANULES = {1: 12, 2: 14, 3: 16}
"""log2 of granules by TG, which has other codes than S2TG and TG1."""


class CommandError(Exception):
    """The queue stops at a command. `code` is the value of CMDQ_CONS.ERR."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class CommandQueue:
    """The queue that the register CMDQ_BASE describes, for one run.

    `waiting` says that a device has not answered an invalidation since the last CMD_SYNC; it is so again afterwards.
    `interrupt_lost` says that the write of a CMD_SYNC found no memory. `enabled` is CR0.SMMUEN, `vmw` CR0.VMW.
    """

    def __init__(
        self,
        memory: Memory,
        caches: Caches,
        bus: Bus,
        events: EventQueue,
        features: Features,
        *,
        enabled: bool,
        vmw: int,
        waiting: bool,
    ) -> None:
        self._memory = memory
        self._config, self._tlb = caches
        self._bus = bus
        self._events = events
        self._features = features
        self._enabled = enabled
        self._vmw = vmw if features.vmw and vmw <= 4 else 0
        self.waiting = waiting
        self.interrupt_lost = False

    def run(self, base: int, produced: int, consumed: int) -> tuple[int, int]:
        """Consume up to `produced`, or to the first command that fails. Returns the new position, and the error."""
        ring = Ring(CmdqBase.ADDR.get(base), CmdqBase.LOG2SIZE.get(base), self._features.cmdq_bits, _COMMAND)
        try:
            while not ring.same(produced, consumed):
                self._execute(self._fetch(ring.place(consumed)))
                consumed = ring.after(consumed)
        except CommandError as error:
            return consumed, error.code
        return consumed, 0

    def _fetch(self, address: int) -> int:
        try:
            return int.from_bytes(self._memory.read(address, _COMMAND), "little")
        except OutsideMemory:
            raise CommandError(CERROR_ABT) from None

    def _execute(self, raw: int) -> None:
        layout = COMMANDS.get(raw & 0xFF)
        if layout is None or not self._is_there(raw & 0xFF) or (raw & _SSEC and hasattr(layout, "SSec")):
            raise CommandError(CERROR_ILL)
        # Reserved bits are ignored, prefetches are hints, and no map of partitions is kept.
        if carry_out := self._COMMANDS.get(raw & 0xFF):
            carry_out(self, raw)

    def _is_there(self, opcode: int) -> bool:
        """Whether the unit has what a command is about."""
        features = self._features
        if opcode in _STAGE_1:
            return features.s1p
        if opcode in _STAGE_2:
            return features.s2p
        if opcode in _EL2:
            return features.hyp
        if opcode in (Resume.Opcode.value, StallTerm.Opcode.value):
            return features.stall_model != TERMINATE_ONLY
        others = {
            AtcInv.Opcode.value: features.ats,
            PriResp.Opcode.value: features.pri,
            CfgiVmsPidm.Opcode.value: features.vms,
        }
        return others.get(opcode, True)

    # Structures

    def _cfgi_ste(self, raw: int) -> None:
        stream = CfgiSte.StreamID.get(raw)
        self._config.drop_streams(stream, stream, leaf=bool(CfgiSte.Leaf.get(raw)))

    def _cfgi_ste_range(self, raw: int) -> None:
        order = CfgiSteRange.Range.get(raw) + 1
        stream = CfgiSteRange.StreamID.get(raw)
        first = 0 if order == EVERY_STREAM + 1 else stream >> order << order
        self._config.drop_streams(first, first + (1 << order) - 1, leaf=False)

    def _cfgi_cd(self, raw: int) -> None:
        stream, substream = CfgiCd.StreamID.get(raw), CfgiCd.SubstreamID.get(raw)
        self._config.drop_substream(stream, substream, leaf=bool(CfgiCd.Leaf.get(raw)))

    def _cfgi_cd_all(self, raw: int) -> None:
        self._config.drop_substreams(CfgiCdAll.StreamID.get(raw))

    # Translations

    def _vmids(self, vmid: int) -> Iterator[int]:
        """The VMIDs that a command means: CR0.VMW has lower bits ignored, and without stage 2 there is one."""
        if not self._features.s2p:
            return iter((0,))
        first = vmid >> self._vmw << self._vmw
        return iter(range(first, first + (1 << self._vmw)))

    def _nh_all(self, raw: int) -> None:
        for vmid in self._vmids(tlbi.TlbiNhAll.VMID.get(raw)):
            self._tlb.drop_vmid(VA, vmid)

    def _nh_asid(self, raw: int) -> None:
        for vmid in self._vmids(tlbi.TlbiNhAsid.VMID.get(raw)):
            self._tlb.drop_asid(Tag(VA, vmid, tlbi.TlbiNhAsid.ASID.get(raw)))

    def _nh_va(self, raw: int) -> None:
        block = self._block(raw)
        for vmid in self._vmids(tlbi.TlbiNhVa.VMID.get(raw)):
            self._tlb.drop_block(Tag(VA, vmid, tlbi.TlbiNhVa.ASID.get(raw)), block)

    def _nh_vaa(self, raw: int) -> None:
        block = self._block(raw)
        for vmid in self._vmids(tlbi.TlbiNhVaa.VMID.get(raw)):
            self._tlb.drop_block(Tag(VA, vmid, GLOBAL), block)

    def _el2_all(self, _raw: int) -> None:
        self._tlb.drop_world(EL2)
        self._tlb.drop_world(EL2_E2H)

    def _el2_asid(self, raw: int) -> None:
        self._tlb.drop_asid(Tag(EL2_E2H, 0, tlbi.TlbiEl2Asid.ASID.get(raw)))

    def _el2_va(self, raw: int) -> None:
        block = self._block(raw)
        self._tlb.drop_block(Tag(EL2, 0, GLOBAL), block)
        self._tlb.drop_block(Tag(EL2_E2H, 0, tlbi.TlbiEl2Va.ASID.get(raw)), block)

    def _el2_vaa(self, raw: int) -> None:
        block = self._block(raw)
        self._tlb.drop_block(Tag(EL2, 0, GLOBAL), block)
        self._tlb.drop_block(Tag(EL2_E2H, 0, GLOBAL), block)

    def _s12_vmall(self, raw: int) -> None:
        for vmid in self._vmids(tlbi.TlbiS12Vmall.VMID.get(raw)):
            self._tlb.drop_vmid(VA, vmid)
            self._tlb.drop_vmid(IPA, vmid)

    def _s2_ipa(self, raw: int) -> None:
        block = self._block(raw & ~_RESERVED_OF_IPA)
        for vmid in self._vmids(tlbi.TlbiS2Ipa.VMID.get(raw)):
            # What was made of both stages stays: IHI0070 G.b section 4.4.
            self._tlb.drop_block(Tag(IPA, vmid, GLOBAL), block)

    def _nsnh_all(self, _raw: int) -> None:
        self._tlb.drop_world(VA)
        self._tlb.drop_world(IPA)

    def _block(self, raw: int) -> Block:
        """The addresses of a command with a range: all such commands have the fields at the same places."""
        layout = tlbi.TlbiNhVa
        first, leaf = layout.Addr.get(raw), bool(layout.Leaf.get(raw))
        num, scale, ttl, tg = (field.get(raw) for field in (layout.NUM, layout.SCALE, layout.TTL, layout.TG))
        if not self._features.ds:
            scale &= _SCALE_WITHOUT_DS
        if not self._features.ril or not tg:
            return Block(first, first | 0xFFF, leaf)
        if tg == 2 and ttl == 1 and not self._features.ds:
            ttl = 0
        if not (num or scale or ttl):
            raise CommandError(CERROR_ILL)
        order = _GRANULES[tg]
        size = (num + 1) << min(scale, _LARGEST_SCALE) + order
        return Block(first, min(first + size - 1, MAX_ADDRESS), leaf, order, ttl or None)

    # Devices and answers

    def _atc_inv(self, raw: int) -> None:
        if not self._enabled:
            return
        order = AtcInv.Size.get(raw)
        if order > WHOLE_ADDRESS_SPACE:
            raise CommandError(CERROR_ILL)
        size = 1 << order + 12
        first = AtcInv.Addr.get(raw) & -size
        last, stream = min(first + size - 1, MAX_ADDRESS), AtcInv.StreamID.get(raw)
        answers = []
        if AtcInv.SSV.get(raw) and not AtcInv.Global.get(raw):
            answers.append(self._bus.invalidate(stream, AtcInv.SubstreamID.get(raw), first, last))
        else:
            # Without a PASID prefix it is about all translations of the function.
            answers.append(self._bus.invalidate_pasids(stream, first, last))
            if not AtcInv.SSV.get(raw):
                answers.append(self._bus.invalidate(stream, None, first, last))
        self.waiting |= any(answer != "done" for answer in answers)

    def _pri_resp(self, raw: int) -> None:
        if not self._enabled:
            return
        if (code := PriResp.Resp.get(raw)) == _ILLEGAL_RESP:
            raise CommandError(CERROR_ILL)
        pasid = PriResp.SubstreamID.get(raw) if PriResp.SSV.get(raw) else None
        self._bus.respond(PriResp.StreamID.get(raw), pasid, PriResp.PRGIndex.get(raw), RESPONSES[code])

    def _resume(self, raw: int) -> None:
        self._events.resume(Resume.STAG.get(raw), Resume.StreamID.get(raw))

    def _stall_term(self, raw: int) -> None:
        self._events.end_stalls(StallTerm.StreamID.get(raw))

    def _sync(self, raw: int) -> None:
        if Sync.CS.get(raw) == _ILLEGAL_CS:
            raise CommandError(CERROR_ILL)
        if self.waiting:
            self.waiting = False
            raise CommandError(CERROR_ATC_INV_SYNC)
        place = Sync.MSIAddr.get(raw)
        if Sync.CS.get(raw) == 1 and place and self._features.msi:
            try:
                self._memory.write(place, Sync.MSIData.get(raw).to_bytes(4, "little"))
            except OutsideMemory:
                self.interrupt_lost = True

    _COMMANDS: ClassVar[Mapping[int, Callable[["CommandQueue", int], None]]] = {
        CfgiSte.Opcode.value: _cfgi_ste,
        CfgiSteRange.Opcode.value: _cfgi_ste_range,
        CfgiCd.Opcode.value: _cfgi_cd,
        CfgiCdAll.Opcode.value: _cfgi_cd_all,
        tlbi.TlbiNhAll.Opcode.value: _nh_all,
        tlbi.TlbiNhAsid.Opcode.value: _nh_asid,
        tlbi.TlbiNhVa.Opcode.value: _nh_va,
        tlbi.TlbiNhVaa.Opcode.value: _nh_vaa,
        tlbi.TlbiEl2All.Opcode.value: _el2_all,
        tlbi.TlbiEl2Asid.Opcode.value: _el2_asid,
        tlbi.TlbiEl2Va.Opcode.value: _el2_va,
        tlbi.TlbiEl2Vaa.Opcode.value: _el2_vaa,
        tlbi.TlbiS12Vmall.Opcode.value: _s12_vmall,
        tlbi.TlbiS2Ipa.Opcode.value: _s2_ipa,
        tlbi.TlbiNsnhAll.Opcode.value: _nsnh_all,
        AtcInv.Opcode.value: _atc_inv,
        PriResp.Opcode.value: _pri_resp,
        Resume.Opcode.value: _resume,
        StallTerm.Opcode.value: _stall_term,
        Sync.Opcode.value: _sync,
    }


_STAGE_1 = {
    layout.Opcode.value
    for layout in (CfgiCd, CfgiCdAll, tlbi.TlbiNhAll, tlbi.TlbiNhAsid, tlbi.TlbiNhVa, tlbi.TlbiNhVaa)
}
_STAGE_2 = {layout.Opcode.value for layout in (tlbi.TlbiS12Vmall, tlbi.TlbiS2Ipa)}
_EL2 = {layout.Opcode.value for layout in (tlbi.TlbiEl2All, tlbi.TlbiEl2Asid, tlbi.TlbiEl2Va, tlbi.TlbiEl2Vaa)}
