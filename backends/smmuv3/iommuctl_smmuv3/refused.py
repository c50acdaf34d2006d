# SPDX-License-Identifier: Apache-2.0
"""What a unit makes of a request that it does not carry out: the event, or none, and why. IHI0070 G.b section 7.3."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SILENT = 0
"""Stands for the number of an event where there is none."""
F_UUT = 0x01
C_BAD_STREAMID, F_STE_FETCH, C_BAD_STE, F_BAD_ATS_TREQ, F_STREAM_DISABLED, F_TRANSL_FORBIDDEN = range(2, 8)
C_BAD_SUBSTREAMID, F_CD_FETCH, C_BAD_CD, F_WALK_EABT = range(8, 12)
F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION = range(0x10, 0x14)
F_TLB_CONFLICT, F_CFG_CONFLICT = 0x20, 0x21
F_VMS_FETCH = 0x25


class Reason(NamedTuple):
    """An event's name, and what it means where nothing more is known."""

    name: str
    sentence: str


REASONS: Mapping[int, Reason] = MappingProxyType({
    SILENT: Reason("ABORT", "the transaction is aborted, without an event"),
    F_UUT: Reason("F_UUT", "the transaction is not supported: it crosses 4 KB, and has one translation"),
    C_BAD_STREAMID: Reason("C_BAD_STREAMID", "the stream table has no such StreamID"),
    F_STE_FETCH: Reason("F_STE_FETCH", "the STE, or the descriptor that leads to it, cannot be read"),
    C_BAD_STE: Reason("C_BAD_STE", "the STE cannot be used"),
    F_BAD_ATS_TREQ: Reason("F_BAD_ATS_TREQ", "the STE allows no translation requests"),
    F_STREAM_DISABLED: Reason("F_STREAM_DISABLED", "the STE allows no transactions without PASID"),
    F_TRANSL_FORBIDDEN: Reason("F_TRANSL_FORBIDDEN", "the STE allows no translated transactions"),
    C_BAD_SUBSTREAMID: Reason("C_BAD_SUBSTREAMID", "the stream has no such PASID"),
    F_CD_FETCH: Reason("F_CD_FETCH", "the CD, or the descriptor that leads to it, cannot be read"),
    C_BAD_CD: Reason("C_BAD_CD", "the CD cannot be used"),
    F_WALK_EABT: Reason("F_WALK_EABT", "a descriptor of a table cannot be read or updated"),
    F_TRANSLATION: Reason("F_TRANSLATION", "the tables do not translate the address"),
    F_ADDR_SIZE: Reason("F_ADDR_SIZE", "an address is wider than the size of output addresses"),
    F_ACCESS: Reason("F_ACCESS", "the accessed flag of the page is not set"),
    F_PERMISSION: Reason("F_PERMISSION", "the page does not allow the access"),
    F_TLB_CONFLICT: Reason("F_TLB_CONFLICT", "the TLB has several translations of the address"),
    F_CFG_CONFLICT: Reason("F_CFG_CONFLICT", "the STE is not the same as others of the span that STE.CONT tells"),
    F_VMS_FETCH: Reason("F_VMS_FETCH", "the virtual machine structure cannot be read"),
})  # fmt: skip


class Refused(Exception):
    """The request ends with that event. `fields` are those of its record besides what the request tells.

    `recorded` says whether there is a record, `stalls` that the transaction waits for an answer.
    """

    def __init__(
        self,
        event: int,
        because: str = "",
        fields: Mapping[str, int] | None = None,
        *,
        recorded: bool = True,
        stalls: bool = False,
    ) -> None:
        super().__init__(event)
        self.event = event
        self.because = because or REASONS[event].sentence
        self.fields = dict(fields or {})
        self.recorded = recorded and event != SILENT
        self.stalls = stalls
