# SPDX-License-Identifier: Apache-2.0
"""A state folder, its backend, and the operations on them: the ground that class Iommu stands on."""

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from iommuctl.errors import InUse, NoSuchDevice, NoSuchUnit, OtherBackend, Unsupported, Usage
from iommuctl.model import Call, Command, Device, IommuUnit, MemoryWrite, Rid
from iommuctl.requests import RepairRequest, Settled, SetupRequest
from iommuctl.state.books import Books
from iommuctl.state.folder import default_folder
from iommuctl.state.store import Store
from iommuctl.state.transaction import Transaction

if TYPE_CHECKING:
    import pluggy

    from iommuctl.architecture import Driver, TableFormats
    from iommuctl.capabilities import Capabilities
    from iommuctl.state.overlay import Backing


_T = TypeVar("_T")


class Outcome(NamedTuple):
    """What an operation did to the hardware; `calls` are those to the kernel. `writes` is filled in a dry run only.

    `warnings` are sentences about what is no error and should be known.
    """

    commands: tuple[Command, ...] = ()
    calls: tuple[Call, ...] = ()
    writes: tuple[MemoryWrite, ...] = ()
    warnings: tuple[str, ...] = ()


class Operation:
    """One operation in progress: its transaction, the rows, and the hooks of the backend."""

    def __init__(self, session: "Session", transaction: Transaction) -> None:
        self._session = session
        self.transaction = transaction
        self.books = Books(transaction.connection)

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call a hook of the backend. Raises Unsupported when the backend has none."""
        answer = getattr(self._session.manager(self.transaction).hook, f"iommuctl_{hook}")(
            context=self.transaction, **arguments
        )
        if answer is None:
            backend = self.transaction.meta("backend")
            raise Unsupported(
                f"the backend {backend} cannot do this", because=f"it has no {hook.replace('_', ' ')} operation"
            )
        return answer

    def settle(self, name: str) -> None:
        """Tell a simulator which operation wrote to memory that was in use."""
        hook = self._session.manager(self.transaction).hook.iommuctl_settle
        transaction = self.transaction
        hook(context=transaction, request=Settled(name, transaction.used_writes(), transaction.new_pages()))

    @cached_property
    def capabilities(self) -> "Capabilities":
        answer: Capabilities = self.call("capabilities")
        return answer

    @property
    def formats(self) -> "TableFormats":
        hook = self._session.manager(self.transaction).hook.iommuctl_formats
        answer: TableFormats | None = hook(context=self.transaction)
        return answer or self.driver

    @property
    def real(self) -> bool:
        """Whether the machine is real: its tables cannot be read, and its memory has names."""
        return self.transaction.memory_plan() is None

    @property
    def driver(self) -> "Driver":
        """Raises Unsupported where the machine is real."""
        if self.real:
            raise Unsupported(
                "the tables of this machine cannot be read",
                because="the kernel manages them, and shows them to nobody",
                hint="`iommuctl translate` answers from what is mapped; `table dump PGTABLE` reads page tables",
            )
        answer: Driver = self.call("driver")
        return answer

    def device(self, rid: Rid | str) -> Device:
        """Raises NoSuchDevice, BadRid."""
        rid = Rid.parse(str(rid))
        found: list[Device] = self.call("devices", rid=rid) if self.transaction.meta("backend") else []
        if not found:
            raise NoSuchDevice(f"no device {rid}", hint="`iommuctl device list` names them all")
        return found[0]


class Session:
    """An open state folder.

    `state` is the folder (default: $IOMMUCTL_STATE, else the user's). `backend` is the backend of a new folder, and
    must be the folder's own for an old one.
    """

    def __init__(self, state: str | Path | None = None, *, backend: str | None = None) -> None:
        self.dry_run = False
        """Whether changing calls are carried out and then forgotten, for a look at `last`."""
        self.last = Outcome()
        self._store = Store(Path(state if state is not None else default_folder()), self)
        self._wanted = backend
        self._manager: tuple[str, pluggy.PluginManager] | None = None
        self._shared: Operation | None = None
        self._open: Transaction | None = None
        self._forgotten = False
        self._told: list[Outcome] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files of the folder; the next call opens them again."""
        self._store.close()

    @property
    def state(self) -> Path:
        """The state folder."""
        return self._store.folder

    @property
    def backend_name(self) -> str | None:
        """The folder's backend; None before the first use."""
        with self._read() as operation:
            name: str | None = operation.transaction.meta("backend")
            return name

    @property
    def architecture(self) -> str | None:
        """The folder's architecture; None before the first use."""
        with self._read() as operation:
            name: str | None = operation.transaction.meta("architecture")
            return name

    def require_backend(self, name: str) -> None:
        """Work on a folder of that backend, or make a new folder one of it. Raises OtherBackend."""
        if self._wanted and self._wanted != name:
            raise OtherBackend(f"the backend {name} is wanted, not {self._wanted}", hint="leave --backend away")
        before, self._wanted = self._wanted, name
        try:
            with self._read() as operation:
                if operation.transaction.meta("backend"):
                    self._check_backend(operation.transaction)
        except OtherBackend:
            self._wanted = before
            raise

    def capabilities(self) -> "Capabilities":
        """What the folder's backend declares; before the first use, what it would declare."""
        with self._read() as operation:
            if operation.transaction.meta("backend"):
                return operation.capabilities
        return self.declared(self._wanted)

    @staticmethod
    def declared(backend: str | None) -> "Capabilities":
        """What a backend declares in a new folder; None is the one that a new folder would have."""
        from iommuctl.first_use import trial

        with trial(backend) as operation:
            return operation.capabilities

    def units(self) -> list[IommuUnit]:
        """The IOMMU units of the folder's machine; before the first use, those that it would have."""
        with self._read() as operation:
            if operation.transaction.meta("backend"):
                return list(operation.call("units"))
        from iommuctl.first_use import trial

        with trial(self._wanted) as operation:
            return list(operation.call("units"))

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Operation]:
        """An operation that reads; before the first use, on the machine that the folder would have if that is real."""
        with self._read() as operation:
            used = self._open or operation.transaction.meta("backend")
            name = None if used else self._would_be()
            if name is None:
                yield operation
                return
        from iommuctl.first_use import trial

        with trial(name) as operation:
            yield operation

    def _would_be(self) -> str | None:
        """The backend that a new folder would have, if its machine is there already, as hardware is."""
        from iommuctl.first_use import is_real
        from iommuctl.plugins import first_usable

        name = self._wanted or first_usable()[0]
        return name if is_real(name) else None

    def unit(self, name: str) -> IommuUnit:
        """The IOMMU unit of that name. Raises NoSuchUnit."""
        for unit in self.units():
            if unit.name == name:
                return unit
        raise NoSuchUnit(f"no unit {name!r}", hint="`iommuctl unit list` names them all")

    def setup(
        self,
        *,
        architecture: str | None = None,
        ram: tuple[int, int] | None = None,
        tables: tuple[int, int] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a folder that has no objects yet: a simulated machine of that architecture.

        `ram` and `tables` are (base, size) in bytes. Raises InUse when the folder has objects, Usage for options
        and ranges that cannot be.
        """
        from iommuctl.first_use import set_up

        request = SetupRequest(architecture, ram, tables, dict(options or {}))
        with self._change(first_use=False) as operation:
            transaction = operation.transaction
            if transaction.meta("backend"):
                self._check_backend(transaction)
                if operation.books.domains() or operation.books.memories() or operation.call("devices", rid=None):
                    raise InUse(
                        f"the state folder {self.state} has objects",
                        hint="`iommuctl sim reset` forgets them all; or name another folder with --state",
                    )
                transaction.clear()
            set_up(self, transaction, request, self._wanted)

    def reset(self) -> None:
        """Back to the folder as `setup` left it: every object is forgotten, memory is zero."""
        from iommuctl.first_use import set_up

        with self._change(anew=True) as operation:
            transaction = operation.transaction
            saved = transaction.meta("setup")
            if saved:
                self._check_backend(transaction)
                name = transaction.meta("backend")
                if transaction.memory_plan() is None:
                    raise Unsupported(f"the backend {name} has no machine that could be made new")
                transaction.clear()
                ram, tables = (tuple(part) if part else None for part in saved[1:3])
                set_up(self, transaction, SetupRequest(saved[0], ram, tables, saved[3]), name)
            else:
                set_up(self, transaction, SetupRequest(), self._wanted)

    def backing(self, transaction: Transaction) -> "Backing":
        """The named memory of a machine that is real."""
        from iommuctl.named_memory import NamedMemory

        return NamedMemory(Operation(self, transaction))

    def repair(self, transaction: Transaction, backend: str, intents: list[Any]) -> None:
        """Have the backend bring what an unfinished change left in the kernel to what the rows say."""
        from iommuctl.named_memory import truth
        from iommuctl.page_faults import end_pending
        from iommuctl.plugins import load_backend
        from iommuctl.state import faults, page_groups

        others = page_groups.store_noted(transaction, faults.store_noted(transaction, intents))
        if intents and not others:
            return
        operation = Operation(self, transaction)
        request = RepairRequest(others, truth(operation))
        load_backend(backend).hook.iommuctl_repair(context=transaction, request=request)
        for slot in page_groups.ended(others):
            end_pending(operation, slot)

    def manager(self, transaction: Transaction) -> "pluggy.PluginManager":
        """The plugin manager that holds the folder's backend."""
        name = transaction.meta("backend")
        if self._manager is None or self._manager[0] != name:
            from iommuctl.plugins import load_backend

            self._manager = (name, load_backend(name))
        return self._manager[1]

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A block in which all that is read belongs to one moment. Nothing can be changed in it."""
        outer = self._shared
        with _untranslated(self._read()) as operation:
            self._shared = operation
            try:
                yield
            finally:
                self._shared = outer

    @contextlib.contextmanager
    def transaction(self, *, dry_run: bool = False) -> Iterator[list[Outcome]]:
        """A block whose changes take effect together at its end, or not at all when it raises, and with `dry_run`.

        Each call in it is whole or nothing by itself, so that its error can be caught; what is read is as changed so
        far. There is one at a time. Gives a list that gets what `last` has after each of its calls.
        """
        if self._open or self._shared:
            raise Usage("a transaction within another, or in a block of reading", hint="end the outer block first")
        with _untranslated(self._store.change(dry_run=dry_run)) as transaction:
            self._open, self._forgotten, self._told = transaction, dry_run, []
            try:
                yield self._told
            finally:
                self._open = None

    @property
    def in_reading(self) -> bool:
        """Whether a block of `reading` is open."""
        return self._shared is not None

    @property
    def in_transaction(self) -> bool:
        """Whether a block of `transaction` is open."""
        return self._open is not None

    @contextlib.contextmanager
    def _read(self) -> Iterator[Operation]:
        if self._shared:
            yield self._shared
            return
        if self._open:
            with self._store.failures():
                yield Operation(self, self._open)
            return
        with self._store.read() as transaction:
            if transaction.meta("backend"):
                self._check_backend(transaction)
            elif self._wanted:
                from iommuctl.plugins import load_backend

                load_backend(self._wanted)
            yield Operation(self, transaction)

    @contextlib.contextmanager
    def _change(self, name: str = "", *, first_use: bool = True, anew: bool = False) -> Iterator[Operation]:
        """An operation that changes something: whole, or not at all. `first_use` prepares a folder that is new.

        `name` is the operation as one types it, for one that may change tables. `anew` is for one that forgets all
        that there is.
        """
        if self._shared:
            raise Usage("a change within a block of reading", hint="end the block first")
        self.last = Outcome()
        with self._step(anew=anew) as transaction:
            if first_use and not anew:
                if transaction.meta("backend"):
                    self._check_backend(transaction)
                else:
                    from iommuctl.first_use import set_up

                    set_up(self, transaction, SetupRequest(), self._wanted)
                    transaction.commands.clear()
            operation = Operation(self, transaction)
            yield operation
            if name and transaction.used_writes():
                operation.settle(name)
            if self.dry_run:
                transaction.collect_writes()
                if transaction.writes and operation.real:
                    from iommuctl.named_memory import placed

                    transaction.writes = placed(operation, transaction.writes)
        self.last = Outcome(
            tuple(transaction.commands), tuple(transaction.calls), transaction.writes, tuple(transaction.warnings)
        )
        if self._open:
            self._told.append(self.last)

    @contextlib.contextmanager
    def _step(self, *, anew: bool) -> Iterator[Transaction]:
        """A transaction of its own, or a step of the one that is open."""
        if self._open is None:
            with self._store.change(dry_run=self.dry_run, anew=anew) as transaction:
                yield transaction
        else:
            with self._store.failures(), self._open.step(undone=self.dry_run and not self._forgotten):
                yield self._open

    def _check_backend(self, transaction: Transaction) -> None:
        name = transaction.meta("backend")
        if self._wanted and self._wanted != name:
            raise OtherBackend(
                f"the state folder {self.state} belongs to the backend {name}, not to {self._wanted}",
                hint="leave --backend away, or name another folder with --state",
            )


class _BlockLeft(Exception):
    """Stands for what a caller's block raised."""


@contextlib.contextmanager
def _untranslated(folder: AbstractContextManager[_T]) -> Iterator[_T]:
    """The same, but what the block raises comes out as it is: a caller's OSError says nothing of the state folder."""
    raised: BaseException | None = None
    with contextlib.suppress(_BlockLeft), folder as value:
        try:
            yield value
        except BaseException as error:
            raised = error
            raise _BlockLeft from None
    if raised:
        raise raised
