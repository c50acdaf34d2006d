# SPDX-License-Identifier: Apache-2.0
"""Our side of a comparison, as far as there is one: memory, and what the specification says to a request."""

from iommuctl.formats.memory import FileMemory, read_word, write_word
from iommuctl.model import Access, Rid, Step
from tests.differential.outcome import Ours
from tests.differential.plans import DEVICES, Dma
from tests.differential.smmuv3.prediction import Predictor

_NUMBERS = {rid: number for number, (rid, _) in enumerate(DEVICES)}


class Specified:
    """A unit that has no caches and makes no mistakes: the tests' own walk."""

    def __init__(self, memory: FileMemory, predictor: Predictor) -> None:
        self._memory = memory
        self._predictor = predictor
        self._record: int | None = None

    def word(self, address: int) -> int:
        return read_word(self._memory, address)

    def put(self, address: int, word: int) -> None:
        write_word(self._memory, address, word)

    def steps(self, rid: Rid, iova: int, access: Access = "r") -> tuple[Step, ...]:
        asked = Dma(_NUMBERS[rid], "w" if access == "w" else "r", iova, 1)
        return self._predictor.specified(asked).steps

    def dma(self, event: Dma, data: bytes) -> Ours:  # noqa: ARG002
        found = self._predictor.specified(event)
        self._record = getattr(found.outcome, "record", None)
        return Ours(found.outcome, False, False, found.steps)

    def take_record(self) -> int | None:
        record, self._record = self._record, None
        return record
