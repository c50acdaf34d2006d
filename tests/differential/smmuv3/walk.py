# SPDX-License-Identifier: Apache-2.0
"""The way of a request from the stream table to an address, as the specification has it or as QEMU goes it.

IHI0070 G.b sections 3.3, 3.4, 5 and 7.3; with a reader that deviates, QEMU's way.
"""

from iommuctl_smmuv3.cd import Cd
from iommuctl_smmuv3.cd_rules import TG1_GRANULES
from iommuctl_smmuv3.events import CLASS_CD, CLASS_IN, CLASS_TT
from iommuctl_smmuv3.features import ADDRESS_BITS
from iommuctl_smmuv3.registers import TWO_LEVEL, StrtabBase, StrtabBaseCfg
from iommuctl_smmuv3.stage2_geometry import GRANULES
from iommuctl_smmuv3.ste import BYPASS, STAGE_2, WITH_STAGE_1, WITH_STAGE_2, Ste
from iommuctl_smmuv3.stream_table import MAX_SPAN, L1Std, array_size
from tests.differential.smmuv3 import descriptors, readings
from tests.differential.smmuv3.caches import Asked, Tag
from tests.differential.smmuv3.reader import Reader, Registers
from tests.differential.smmuv3.records import (
    ABORTED,
    ADDR_SIZE,
    TRANSLATION,
    Place,
    Refused,
    Request,
    bad_cd,
    bad_ste,
    bad_stream_id,
    cd_fetch,
    ste_fetch,
    translation,
)
from tests.differential.smmuv3.tables import Geometry, Stage1, Stage2

_STE = Ste.bits // 8


class Walk:
    """One request's way."""

    def __init__(self, reader: Reader, registers: Registers, request: Request) -> None:
        self._reader = reader
        self._registers = registers
        self._request = request

    def run(self) -> int:
        """The address. Raises Refused, and Unsafe where QEMU must not be asked."""
        reader, request = self._reader, self._request
        ste = self._ste()
        if Ste.V.get(ste) and not Ste.Config.get(ste) & BYPASS:
            raise Refused(ABORTED)
        if Ste.V.get(ste) and Ste.Config.get(ste) in WITH_STAGE_2 and reader.features.s2p and not Ste.S2AA64.get(ste):
            reader.fatal()
        ste, legal = readings.ste(reader, readings.without_bits(reader, Ste, ste, "S2TTB"))
        if not legal:
            raise bad_ste(request)
        config = Ste.Config.get(ste)
        place = Place(False, CLASS_IN)
        if config == BYPASS:
            if request.iova >> reader.features.oas and not reader.deviates("bypass-size"):
                raise translation(ADDR_SIZE, request, place, recorded=True)
            return request.iova
        below = self._stage_2(ste) if config in WITH_STAGE_2 else None
        if config == STAGE_2:
            assert below
            if request.iova >> reader.features.ias:
                raise translation(ADDR_SIZE, request, place, recorded=not reader.deviates("input-size"))
            reader.asked = Asked(Tag(Ste.S2VMID.get(ste)), request.iova)
            return below.translate(request, request.iova, CLASS_IN)
        assert config in WITH_STAGE_1
        ipa = self._stage_1(ste, below)
        if below and reader.asked:
            reader.asked = reader.asked._replace(ipa=ipa)
        return below.translate(request, ipa, CLASS_IN) if below else ipa

    # The stream table

    def _ste(self) -> int:
        reader, request, registers = self._reader, self._request, self._registers
        cfg = registers.strtab_base_cfg
        size = min(StrtabBaseCfg.LOG2SIZE.get(cfg), reader.features.sid_bits)
        if request.stream_id >> size:
            raise self._bad_stream_id()
        base = StrtabBase.ADDR.get(registers.strtab_base)
        if StrtabBaseCfg.FMT.get(cfg) == TWO_LEVEL:
            address = self._second_level(base, StrtabBaseCfg.SPLIT.get(cfg))
        else:
            address = base + _STE * request.stream_id
        words = reader.read(Ste.name, address, 8)
        if words is None:
            raise ste_fetch(request, address)
        return Ste.from_words(words)

    def _second_level(self, base: int, split: int) -> int:
        reader, request = self._reader, self._request
        address, index = base + 8 * (request.stream_id >> split), request.stream_id % (1 << split)
        words = reader.read(L1Std.name, address, 1)
        if words is None:
            raise ste_fetch(request, address)
        span, array = L1Std.Span.get(words[0]), L1Std.L2Ptr.get(words[0])
        if not span or span > min(MAX_SPAN, split + 1):
            raise self._bad_stream_id()
        if index >> span - 1 and not reader.deviates("span"):
            raise self._bad_stream_id()
        if index >> span:
            raise bad_ste(request)
        if words[0] >> 56 and reader.deviates("array-reserved"):
            array |= words[0] >> 56 << 56
        return (array & -array_size(span)) + _STE * index

    def _bad_stream_id(self) -> Refused:
        recorded = self._registers.recinvsid or self._reader.deviates("stream-id-recorded")
        return bad_stream_id(self._request, recorded=recorded)

    # The stages

    def _stage_2(self, ste: int) -> Stage2:
        granule = GRANULES[Ste.S2TG.get(ste)]
        bits, code = 64 - Ste.S2T0SZ.get(ste), Ste.S2SL0.get(ste)
        start = readings.start_level(granule, code)
        output = self._reader.features.output_bits(Ste.S2PS.get(ste), granule, 0)
        base = readings.aligned(self._reader, Ste.S2TTB.get(ste), bits, granule, start)
        tree = Geometry(base, granule, bits, start, output)
        return Stage2(self._reader, tree, affd=bool(Ste.S2AFFD.get(ste)), recorded=bool(Ste.S2R.get(ste)))

    def _stage_1(self, ste: int, below: Stage2 | None) -> int:
        reader, request = self._reader, self._request
        address = Ste.S1ContextPtr.get(ste)
        if below:
            address = self._through(below, address, CLASS_CD, "cd-fetch-read")
        words = reader.read(Cd.name, address, 8)
        if words is None:
            raise cd_fetch(request, address, misplaced=reader.deviates("cd-fetch-address"))
        cd = readings.without_bits(reader, Cd, Cd.from_words(words), "TTB0", "TTB1")
        if Cd.V.get(cd) and Cd.AA64.get(cd) and Cd.IPS.get(cd) >= len(ADDRESS_BITS) - 2:
            reader.fatal()
        bases: dict[int, int] = {}
        if below and reader.deviates("ttb-at-decode"):
            bases = self._both_bases(below, cd, ste)
        if not readings.cd_is_legal(reader, cd, ste, tables=2):
            raise bad_cd(request)
        reader.asked = Asked(Tag(Ste.S2VMID.get(ste), Cd.ASID.get(cd)), None)
        which = request.iova >> 55 & 1
        recorded, had, affd = (bool(Cd.field(name).get(cd)) for name in ("R", f"HAD{which}", "AFFD"))
        wrong = translation(TRANSLATION, request, Place(False, CLASS_IN), recorded=recorded)
        if _epd(cd, which):
            raise wrong
        tbi = Cd.field(f"TBI{which}").get(cd)
        if which and tbi != Cd.TBI0.get(cd) and reader.deviates("tbi1"):
            tbi = Cd.TBI0.get(cd)
        granule = (GRANULES, TG1_GRANULES)[which][Cd.field(f"TG{which}").get(cd)]
        bits = 64 - Cd.field(f"T{which}SZ").get(cd)
        ones = (1 << (56 if tbi else 64) - bits) - 1
        if request.iova >> bits & ones != (ones if which else 0):
            raise wrong
        start = descriptors.highest(granule, bits)
        output = reader.features.output_bits(Cd.IPS.get(cd), granule, 0)
        tree = Geometry(_ttb(cd, which), granule, bits, start, output)
        stage = Stage1(reader, tree, below, affd=affd, had=had, recorded=recorded)
        base = readings.aligned(reader, bases.get(which, tree.base), bits, granule, start)
        return stage.translate(request, base, translated=which in bases)

    def _both_bases(self, below: Stage2, cd: int, ste: int) -> dict[int, int]:
        """Where the start tables are, translated before anybody knows which one is wanted."""
        bases = {}
        for which in (0, 1):
            if not readings.cd_is_legal(self._reader, cd, ste, tables=which + 1):
                raise bad_cd(self._request)
            if not _epd(cd, which):
                bases[which] = self._through(below, _ttb(cd, which), CLASS_TT, "ttb-at-decode")
        return bases

    def _through(self, below: Stage2, ipa: int, cls: int, name: str) -> int:
        """A structure's address, through stage 2; the record of a fault tells of a write, or always of a read."""
        reader, request = self._reader, self._request
        if ipa >> reader.features.oas and reader.deviates("input-size"):
            raise translation(ADDR_SIZE, request, Place(False, cls), recorded=False)
        read = True if request.write and reader.deviates(name) else None
        return below.translate(request, ipa, cls, read=read)


def _epd(cd: int, which: int) -> int:
    return Cd.field(f"EPD{which}").get(cd)


def _ttb(cd: int, which: int) -> int:
    return Cd.field(f"TTB{which}").get(cd)
