# SPDX-License-Identifier: Apache-2.0
"""The walk of extended capabilities, over lists as devices have them and as nobody should."""

from hypothesis import example, given
from hypothesis import strategies as st

from iommuctl.iommufd.pci_config import EXTENDED_SIZE, Extended, extended, extended_capabilities


def config(*headers: tuple[int, int, int], words: dict[int, int] | None = None) -> bytes:
    """A configuration space with capability headers (offset, id, next offset), and words of 16 bits elsewhere."""
    space = bytearray(EXTENDED_SIZE)
    space[0:2] = b"\x86\x80"
    for at, number, after in headers:
        space[at : at + 4] = (number | 1 << 16 | after << 20).to_bytes(4, "little")
    for at, word in (words or {}).items():
        space[at : at + 2] = word.to_bytes(2, "little")
    return bytes(space)


def test_ats_pri_and_pasid_are_found() -> None:
    """PASID register 0x1006: width 16 in bits 12:8, execute and privileged besides."""
    space = config((0x100, 0x1B, 0x150), (0x150, 0x0F, 0x160), (0x160, 0x13, 0), words={0x104: 0x1006})
    assert extended_capabilities(space) == {0x1B: 0x100, 0x0F: 0x150, 0x13: 0x160}
    assert extended(space) == Extended(ats=True, pri=True, pasid_bits=16)


def test_a_device_without_any() -> None:
    assert extended(config()) == Extended(ats=False, pri=False, pasid_bits=0)
    assert extended(config((0x100, 0x01, 0))) == Extended(ats=False, pri=False, pasid_bits=0)
    assert extended(config()[:256]) == Extended(ats=False, pri=False, pasid_bits=0)


def test_a_device_that_does_not_answer_tells_nothing() -> None:
    assert extended(b"\xff" * EXTENDED_SIZE) is None


def test_a_loop_ends() -> None:
    space = config((0x100, 0x01, 0x140), (0x140, 0x0F, 0x100))
    assert extended_capabilities(space) == {0x01: 0x100, 0x0F: 0x140}


def test_the_list_does_not_lead_out_of_the_extended_space() -> None:
    """Offset 0x40 is in the conventional space, whatever stands there; at 0xffc a register would lie outside."""
    space = config((0x100, 0x01, 0x40), (0x40, 0x0F, 0))
    assert extended_capabilities(space) == {0x01: 0x100}
    assert extended(config((0x100, 0x01, 0xFFC), (0xFFC, 0x1B, 0))) == Extended(False, False, 0)


def test_of_two_with_one_id_the_first_counts() -> None:
    space = config((0x100, 0x1B, 0x140), (0x140, 0x1B, 0), words={0x104: 0x0500, 0x144: 0x1400})
    assert extended(space) == Extended(False, False, pasid_bits=5)


def test_a_width_that_cannot_be_is_cut_to_the_widest() -> None:
    assert extended(config((0x100, 0x1B, 0), words={0x104: 0x1F00})) == Extended(False, False, pasid_bits=20)


headers = st.tuples(st.integers(0x40, 0x3FF).map(lambda word: word * 4), st.integers(0, 0xFFFF), st.integers(0, 0xFFF))


@given(st.lists(headers, max_size=40), st.sampled_from([0, 64, 256, 300, 4095, EXTENDED_SIZE]))
@example([(0x100, 0x0F, 0x102)], EXTENDED_SIZE)
def test_no_list_leads_the_walk_astray(found: list[tuple[int, int, int]], size: int) -> None:
    """Every capability lies where its id stands, inside of what was read, at a multiple of four."""
    space = config(*found)[:size]
    for number, at in extended_capabilities(space).items():
        assert at % 4 == 0
        assert 0x100 <= at <= len(space) - 4
        assert int.from_bytes(space[at : at + 2], "little") == number
    told = extended(space)
    assert told is None or 0 <= told.pasid_bits <= 20
