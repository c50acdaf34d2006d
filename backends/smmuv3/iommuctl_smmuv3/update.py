# SPDX-License-Identifier: Apache-2.0
"""Changing an STE or a CD while the unit uses it: IHI0070 G.b section 3.21.3.

The unit reads 64 bits at once and the words of a structure in any order, so only one word of what it uses may change
at a time. Linux does it so in arm_smmu_write_entry (arm-smmu-v3.c).
"""

from collections.abc import Callable

from iommuctl.formats.bits import Layout
from iommuctl.formats.memory import Memory, write_word

_WORD = (1 << 64) - 1


def plan(layout: type[Layout], old: int, new: int) -> list[int]:
    """What the structure holds after each step from `old` to `new`; caches have to be told after each.

    Where one word alone has bits that both use and that differ, or that `new` uses and `old` did, no step is anything
    but `old` or `new` to the unit. Otherwise the structure is not present in between.
    """
    before, after = layout.used(old), layout.used(new)
    prepared = old & before | new & ~before
    words = [_WORD << shift for shift in range(0, layout.bits, 64)]
    critical = [word for word in words if (prepared ^ new) & after & word]
    if len(critical) > 1:
        # The present bit of both structures is in the first word.
        first = words[0]
        steps = [old & ~first, new & ~first, new]
    elif critical:
        # The critical word takes its unused bits with it.
        (word,) = critical
        prepared = prepared & ~word | old & word
        steps = [prepared, prepared & ~word | new & word, new]
    else:
        steps = [new]
    return [step for step, last in zip(steps, [old, *steps], strict=False) if step != last]


def write_live(memory: Memory, layout: type[Layout], address: int, new: int, announce: Callable[[], None]) -> None:
    """Bring a structure from what it holds to `new`; `announce` has caches forget it, and comes after each step."""
    words = layout.to_words(int.from_bytes(memory.read(address, layout.bits // 8), "little"))
    for step in plan(layout, layout.from_words(words), new):
        following = layout.to_words(step)
        for number, (now, then) in enumerate(zip(words, following, strict=True)):
            if now != then:
                write_word(memory, address + 8 * number, then)
        words = following
        announce()
