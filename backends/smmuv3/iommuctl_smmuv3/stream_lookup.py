# SPDX-License-Identifier: Apache-2.0
"""From a StreamID to its STE: IHI0070 G.b section 3.3.1."""

from collections.abc import Mapping

from iommuctl_smmuv3.config_cache import L1STDS, STES, Cached
from iommuctl_smmuv3.features import Features
from iommuctl_smmuv3.refused import C_BAD_STE, C_BAD_STREAMID, F_CFG_CONFLICT, F_STE_FETCH, Refused
from iommuctl_smmuv3.registers import CR2, TWO_LEVEL, StrtabBase, StrtabBaseCfg
from iommuctl_smmuv3.ste import Ste, illegal
from iommuctl_smmuv3.stream_table import MAX_SPAN, L1Std, array_size
from iommuctl_smmuv3.visits import Unreadable, Visits

_SPLITS = (6, 8, 10)
"""Values of SPLIT; others behave as the first."""
_STE_SIZE, _L1STD_SIZE = Ste.bits // 8, L1Std.bits // 8


class StreamTable:
    """The stream table that the registers STRTAB_BASE and STRTAB_BASE_CFG describe."""

    def __init__(self, base: int, config: int, features: Features, *, records_bad_streams: bool) -> None:
        self._features = features
        self._records = records_bad_streams
        self._bits = min(StrtabBaseCfg.LOG2SIZE.get(config), features.sid_bits)
        split = StrtabBaseCfg.SPLIT.get(config)
        self._split = split if split in _SPLITS else _SPLITS[0]
        self._two_level = features.two_level and StrtabBaseCfg.FMT.get(config) == TWO_LEVEL
        self._base = StrtabBase.ADDR.get(base) & -self._size()

    @classmethod
    def of(cls, registers: Mapping[str, int], features: Features) -> "StreamTable":
        """The table of a unit with these registers."""
        records = bool(CR2.RECINVSID.get(registers["CR2"]))
        return cls(registers["STRTAB_BASE"], registers["STRTAB_BASE_CFG"], features, records_bad_streams=records)

    def find(self, visits: Visits, stream: int) -> int:
        """The STE of a stream, which can be used. Raises Refused."""
        if stream >> self._bits:
            raise self._bad_stream(f"the stream table has StreamIDs of {self._bits} bits")
        config = visits.caches and visits.caches.config
        if config and (found := config.find(STES, stream)):
            ste = visits.from_cache(Ste, found, "ste", stream)
        else:
            address = self._l2_address(visits, stream) if self._two_level else self._base + _STE_SIZE * stream
            ste = _fetched(visits, Ste, address)
            if config:
                if conflicting := config.conflicting(stream, ste):
                    visits.from_cache(Ste, conflicting, "ste", conflicting.first)
                    raise Refused(F_CFG_CONFLICT)
                config.fill(STES, Cached(address, ste, stream, stream), stream)
        if because := illegal(ste, self._features):
            raise Refused(C_BAD_STE, because)
        return ste

    def _l2_address(self, visits: Visits, stream: int) -> int:
        number, index = divmod(stream, 1 << self._split)
        first = number << self._split
        config = visits.caches and visits.caches.config
        if config and (found := config.find(L1STDS, first)):
            descriptor = visits.from_cache(L1Std, found, "ste", stream)
        else:
            address = self._base + _L1STD_SIZE * number
            descriptor = _fetched(visits, L1Std, address)
            if config:
                config.fill(L1STDS, Cached(address, descriptor, first, first | (1 << self._split) - 1), first)
        span = L1Std.Span.get(descriptor)
        if not 0 < span <= min(MAX_SPAN, self._split + 1):
            raise self._bad_stream(f"its level 1 descriptor has the Span {span}")
        if index >= 1 << span - 1:
            raise self._bad_stream(f"its level 1 descriptor leads to {1 << span - 1} STEs")
        return (L1Std.L2Ptr.get(descriptor) & -array_size(span)) + _STE_SIZE * index

    def _size(self) -> int:
        """Bytes of the table, or of its first level: its alignment."""
        if self._two_level:
            return _L1STD_SIZE << max(0, self._bits - self._split)
        return _STE_SIZE << self._bits

    def _bad_stream(self, because: str) -> Refused:
        return Refused(C_BAD_STREAMID, because, recorded=self._records)


def _fetched(visits: Visits, layout: type[Ste | L1Std], address: int) -> int:
    try:
        return visits.structure(layout, address)
    except Unreadable as error:
        raise Refused(F_STE_FETCH, fields={"FetchAddr": error.address & -8}) from None
