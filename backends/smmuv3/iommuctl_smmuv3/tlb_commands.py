# SPDX-License-Identifier: Apache-2.0
"""Commands that invalidate translations: IHI0070 G.b section 4.4, those of the non-secure queue.

Addresses may come with a range: NUM, SCALE, TTL and TG. Where the unit has no RIL these are reserved.
"""

from iommuctl.formats.bits import Address, Bit, Bits, Field, Fixed, Layout
from iommuctl.formats.checks import Check, only

GRANULES = {0: "one page, or any granule", 1: "4 KB", 2: "16 KB", 3: "64 KB"}
"""Values of TG; S2TG, TG0 and TG1 have other codes."""
_ANY_TG = (1, 2, 3)


def _range(num: Field, scale: Field, ttl: Field, tg: Field) -> tuple[Check, ...]:
    """What goes together in a command with a range; the first is CERROR_ILL, the others are reserved."""
    demand = "must come with NUM, SCALE or TTL"
    return (
        Check(tg, demand, lambda command: not command.TG or bool(command.NUM or command.SCALE or command.TTL)),
        only(num, TG=_ANY_TG),
        only(scale, TG=_ANY_TG),
        only(ttl, TG=_ANY_TG),
    )


class TlbiNhAll(Layout, bits=128, name="smmuv3.tlbi-nh-all"):
    """CMD_TLBI_NH_ALL: IHI0070 G.b section 4.4. All of stage 1 of a VMID."""

    Opcode = Fixed(7, 0, 0x10)
    VMID = Bits(47, 32)
    """The VMID that is meant."""


class TlbiNhAsid(Layout, bits=128, name="smmuv3.tlbi-nh-asid"):
    """CMD_TLBI_NH_ASID: IHI0070 G.b section 4.4. What is not global, of an ASID."""

    Opcode = Fixed(7, 0, 0x11)
    VMID = Bits(47, 32)
    """The VMID that is meant."""
    ASID = Bits(63, 48)
    """The ASID that is meant."""


class TlbiNhVa(Layout, bits=128, name="smmuv3.tlbi-nh-va"):
    """CMD_TLBI_NH_VA: IHI0070 G.b section 4.4. Addresses of an ASID."""

    Opcode = Fixed(7, 0, 0x12)
    NUM = Bits(16, 12, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant."""
    SCALE = Bits(25, 20, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant; more than 39 acts as 39."""
    VMID = Bits(47, 32)
    """The VMID that is meant."""
    ASID = Bits(63, 48)
    """The ASID that is meant."""
    Leaf = Bit(64)
    """Entries of the last level alone are meant."""
    TTL128 = Bit(71, needs="D128")
    """TTL is about descriptors of 128 bits."""
    TTL = Bits(73, 72, needs="RIL")
    """The level of the entries that changed; 0 is any."""
    TG = Bits(75, 74, needs="RIL", values=GRANULES)
    Addr = Address(127, 76)
    """The first page."""

    checks = _range(NUM, SCALE, TTL, TG)


class TlbiNhVaa(Layout, bits=128, name="smmuv3.tlbi-nh-vaa"):
    """CMD_TLBI_NH_VAA: IHI0070 G.b section 4.4. Addresses of all ASIDs."""

    Opcode = Fixed(7, 0, 0x13)
    NUM = Bits(16, 12, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant."""
    SCALE = Bits(25, 20, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant; more than 39 acts as 39."""
    VMID = Bits(47, 32)
    """The VMID that is meant."""
    Leaf = Bit(64)
    """Entries of the last level alone are meant."""
    TTL128 = Bit(71, needs="D128")
    """TTL is about descriptors of 128 bits."""
    TTL = Bits(73, 72, needs="RIL")
    """The level of the entries that changed; 0 is any."""
    TG = Bits(75, 74, needs="RIL", values=GRANULES)
    Addr = Address(127, 76)
    """The first page."""

    checks = _range(NUM, SCALE, TTL, TG)


class TlbiEl2All(Layout, bits=128, name="smmuv3.tlbi-el2-all"):
    """CMD_TLBI_EL2_ALL: IHI0070 G.b section 4.4. All of EL2."""

    Opcode = Fixed(7, 0, 0x20)


class TlbiEl2Asid(Layout, bits=128, name="smmuv3.tlbi-el2-asid"):
    """CMD_TLBI_EL2_ASID: IHI0070 G.b section 4.4. What is not global, of an ASID of EL2."""

    Opcode = Fixed(7, 0, 0x21)
    ASID = Bits(63, 48)
    """The ASID that is meant."""


class TlbiEl2Va(Layout, bits=128, name="smmuv3.tlbi-el2-va"):
    """CMD_TLBI_EL2_VA: IHI0070 G.b section 4.4. Addresses of EL2; ASID counts with CR2.E2H."""

    Opcode = Fixed(7, 0, 0x22)
    NUM = Bits(16, 12, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant."""
    SCALE = Bits(25, 20, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant; more than 39 acts as 39."""
    ASID = Bits(63, 48)
    """The ASID that is meant."""
    Leaf = Bit(64)
    """Entries of the last level alone are meant."""
    TTL128 = Bit(71, needs="D128")
    """TTL is about descriptors of 128 bits."""
    TTL = Bits(73, 72, needs="RIL")
    """The level of the entries that changed; 0 is any."""
    TG = Bits(75, 74, needs="RIL", values=GRANULES)
    Addr = Address(127, 76)
    """The first page."""

    checks = _range(NUM, SCALE, TTL, TG)


class TlbiEl2Vaa(Layout, bits=128, name="smmuv3.tlbi-el2-vaa"):
    """CMD_TLBI_EL2_VAA: IHI0070 G.b section 4.4. Addresses of all ASIDs of EL2."""

    Opcode = Fixed(7, 0, 0x23)
    NUM = Bits(16, 12, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant."""
    SCALE = Bits(25, 20, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant; more than 39 acts as 39."""
    Leaf = Bit(64)
    """Entries of the last level alone are meant."""
    TTL128 = Bit(71, needs="D128")
    """TTL is about descriptors of 128 bits."""
    TTL = Bits(73, 72, needs="RIL")
    """The level of the entries that changed; 0 is any."""
    TG = Bits(75, 74, needs="RIL", values=GRANULES)
    Addr = Address(127, 76)
    """The first page."""

    checks = _range(NUM, SCALE, TTL, TG)


class TlbiS12Vmall(Layout, bits=128, name="smmuv3.tlbi-s12-vmall"):
    """CMD_TLBI_S12_VMALL: IHI0070 G.b section 4.4. All of both stages of a VMID."""

    Opcode = Fixed(7, 0, 0x28)
    VMID = Bits(47, 32)
    """The VMID that is meant."""


class TlbiS2Ipa(Layout, bits=128, name="smmuv3.tlbi-s2-ipa"):
    """CMD_TLBI_S2_IPA: IHI0070 G.b section 4.4. Intermediate physical addresses of stage 2."""

    Opcode = Fixed(7, 0, 0x2A)
    NUM = Bits(16, 12, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant."""
    SCALE = Bits(25, 20, needs="RIL")
    """With TG, NUM + 1 times 2**SCALE pages are meant; more than 39 acts as 39."""
    VMID = Bits(47, 32)
    """The VMID that is meant."""
    Leaf = Bit(64)
    """Entries of the last level alone are meant."""
    TTL128 = Bit(71, needs="D128")
    """TTL is about descriptors of 128 bits."""
    TTL = Bits(73, 72, needs="RIL")
    """The level of the entries that changed; 0 is any."""
    TG = Bits(75, 74, needs="RIL", values=GRANULES)
    Addr = Address(119, 76)
    """The first page."""

    checks = _range(NUM, SCALE, TTL, TG)


class TlbiNsnhAll(Layout, bits=128, name="smmuv3.tlbi-nsnh-all"):
    """CMD_TLBI_NSNH_ALL: IHI0070 G.b section 4.4. All that is not secure and not of EL2."""

    Opcode = Fixed(7, 0, 0x30)
