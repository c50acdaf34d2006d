# SPDX-License-Identifier: Apache-2.0
"""Serves the handlers of page requests: takes what waits, has it answered, and goes on until it is told to end.

Groups of a slot are answered one after the other, slots side by side. What is told was committed. Whatever kills the
server, groups that were not answered wait for the next one, which finds mapped what was mapped.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from iommuctl.architecture import PageResponse
from iommuctl.errors import InUse, IommuError, NoSuchFault, NotWaiting, Unsupported
from iommuctl.handlers import HandlerKind, Waiting
from iommuctl.iommu import Iommu
from iommuctl.page_requests import PageGroup
from iommuctl.serving.programs import Programs, Said

SHORTEST, LONGEST = 0.001, 0.050
"""Seconds from one look to the next: while there is something to do, and when there has been nothing for a while."""
AFTER_FAILURE = 1.0
"""The same after a look that failed."""
MOST_AT_ONCE = 256
"""Groups that are answered in one transaction: others wait for the folder's lock meanwhile."""
LOCK = "serving"


class Served(NamedTuple):
    """A group that was answered, by which kind of handler, and why where that is not what the handler is for."""

    group: PageGroup
    response: PageResponse
    kind: HandlerKind
    because: str = ""


class _Answer(NamedTuple):
    """What a group that waits is to be answered."""

    waiting: Waiting
    response: PageResponse
    because: str = ""


class Server:
    """Serves one state folder.

    `answered` hears of each group that was answered, `warn` of what went wrong besides. At most `jobs` programs run at
    a time, each at most `timeout` seconds.
    """

    def __init__(
        self,
        iommu: Iommu,
        *,
        answered: Callable[[Served], None],
        warn: Callable[[str], None],
        jobs: int = 4,
        timeout: float = 10.0,
    ) -> None:
        self._iommu = iommu
        self._answered = answered
        self._warn = warn
        self._jobs = jobs
        self._programs = Programs(iommu.state, timeout)
        self._asked: dict[int, Waiting] = {}
        """The groups that programs were asked about, by their ids."""
        self._said: list[Said] = []
        """What programs said and no transaction has committed yet."""

    def run(self, ended: Callable[[], bool]) -> None:
        """Serve until `ended`. Programs that run then are killed, and their groups wait for the next server.

        A look that fails is told, once until one fails in another way, and tried again. Raises InUse where another
        server is at work.
        """
        pause, told = SHORTEST, ""
        with self._alone():
            while not ended():
                try:
                    busy, failure = self._look(), ""
                except IommuError as error:
                    busy, failure = False, _sentence(error)
                if failure and failure != told:
                    self._warn(f"{failure}; it is tried again")
                told = failure
                pause = SHORTEST if busy else AFTER_FAILURE if failure else min(2 * pause, LONGEST)
                self._programs.wait(pause)

    def serve_once(self, ended: Callable[[], bool]) -> None:
        """Serve what waits and has somebody to answer it, or until `ended`. Raises InUse, and what a look raises."""
        with self._alone():
            while not ended() and (self._look() or self._programs):
                self._programs.wait(LONGEST if self._programs else 0)

    def _look(self) -> bool:
        """Take what is asked, answer what can be answered, run programs. Returns whether any group moved on."""
        self._said += self._programs.ended()
        answers = [_Answer(self._asked[said.key], said.response, said.because) for said in self._said]
        at_once, programs = self._sorted(self._iommu.page_requests())
        answers += self._mapped([each for each in at_once if _kind(each) == "demand-map"])
        answers += [_Answer(each, "invalid") for each in at_once if _kind(each) == "reject"]
        self._answer(answers)
        for said in self._said:
            del self._asked[said.key]
        self._said.clear()
        started = 0
        for each in programs:
            if len(self._programs) < self._jobs:
                self._start(each)
                started += 1
        return bool(answers or started)

    def _sorted(self, waiting: Iterable[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
        """The groups that are answered at once, and those that programs are asked about now: one of a slot."""
        at_once: list[Waiting] = []
        programs: list[Waiting] = []
        busy = {each.group.slot for each in self._asked.values()}
        for each in waiting:
            slot, kind = each.group.slot, _kind(each)
            if kind == "exec" and slot not in busy:
                busy.add(slot)
                programs.append(each)
            elif kind in ("reject", "demand-map") and slot not in busy and len(at_once) < MOST_AT_ONCE:
                at_once.append(each)
        return at_once, programs

    def _mapped(self, groups: Sequence[Waiting]) -> list[_Answer]:
        """Map what groups ask for. Only a later transaction may answer them: then the tables are in memory."""
        if not groups:
            return []
        answers = []
        with self._iommu.transaction():
            for each in groups:
                try:
                    self._iommu.page_in(each.group.id)
                except IommuError as error:
                    answers.append(_Answer(each, "invalid", _sentence(error)))
                else:
                    answers.append(_Answer(each, "success"))
        return answers

    def _answer(self, answers: Sequence[_Answer]) -> None:
        """Answer groups in one transaction, then tell of it."""
        if not answers:
            return
        served: list[Served] = []
        late: list[str] = []
        with self._iommu.transaction():
            for waiting, response, because in answers:
                kind = _kind(waiting)
                assert kind
                try:
                    try:
                        self._iommu.respond(waiting.group.id, response, by=f"fault run, {kind}")
                        served.append(Served(waiting.group, response, kind, because))
                    except Unsupported as error:
                        self._iommu.respond(waiting.group.id, "invalid", by=f"fault run, {kind}")
                        served.append(Served(waiting.group, "invalid", kind, _sentence(error)))
                except (NotWaiting, NoSuchFault) as error:
                    late.append(_sentence(error))
        for each in served:
            self._answered(each)
        for text in late:
            self._warn(text)

    def _start(self, waiting: Waiting) -> None:
        self._asked[waiting.group.id] = waiting
        if said := self._programs.start(waiting):
            self._said.append(said)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two servers would ask a program twice about each group, though only one of the answers could be given."""
        folder = self._iommu.state
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse(
                    f"the page requests of {folder} are served already",
                    because="another `iommuctl fault run` is at work there",
                ) from None
            yield
        finally:
            self._programs.close()
            os.close(lock)


def _kind(waiting: Waiting) -> HandlerKind | None:
    return waiting.handler.kind if waiting.handler else None


def _sentence(error: IommuError) -> str:
    return f"{error.what}: {error.because}" if error.because else error.what
