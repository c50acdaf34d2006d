# SPDX-License-Identifier: Apache-2.0
"""`iommuctl plan`, `apply`, `export` and `recover`: topology documents."""

import os
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.failure import document as described
from iommuctl.cli.failure import show
from iommuctl.cli.files import not_text, opened
from iommuctl.cli.progress import progress
from iommuctl.cli.render import Output
from iommuctl.cli.session import Session, session_of
from iommuctl.errors import StateDamaged, Usage

if TYPE_CHECKING:
    from iommuctl.plan.applying import Applied, Plan
    from iommuctl.plan.diff import Change
    from iommuctl.plan.saved import SavedPlan

EXAMPLES = """
# what is there, as a document; and the same somewhere else
iommuctl export > topology.toml
iommuctl --state /tmp/copy apply topology.toml
# look first, then do exactly that
iommuctl plan topology.toml --out today.plan
iommuctl apply today.plan
# also remove what the document does not name
iommuctl plan topology.toml --prune --detailed-exitcode
iommuctl apply topology.toml --prune
# build damaged tables again, or on real hardware what the kernel has lost; or forget it all
iommuctl recover
iommuctl recover --forget
"""

SYMBOLS = {"add": ("good", "+"), "change": ("address", "~"), "replace": ("address", "-/+"), "remove": ("bad", "-")}
SINGULAR = {"memories": "memory", "domains": "domain", "mappings": "mapping", "slots": "slot"}
PENDING = 6
FEW = 6
"""Ranges of a page table that are shown on its line."""
ALL_LINES = 1000
"""More changes than this are only counted on a terminal."""

app = module_app("Topology documents: what should be there.", EXAMPLES)

File = Annotated[str, typer.Argument(metavar="FILE", help="Topology document; - is stdin.", show_default=False)]
Prune = Annotated[bool, typer.Option("--prune", help="Remove what the document does not name.")]


@app.command("plan")
def plan_(
    ctx: typer.Context,
    file: File,
    *,
    prune: Prune = False,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Write the plan to a file, for `apply`.", show_default=False),
    ] = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 6 when there is something to do.")
    ] = False,
) -> None:
    """Show what `apply` would do, and why.

    All of it is tried in a transaction that is then forgotten, so a plan that is shown can be carried out.
    """
    from iommuctl.plan.applying import apply
    from iommuctl.plan.reading import read

    session = session_of(ctx)
    _check_alone(session, "plan")
    saved = _load(file)
    if out is not None and os.path.exists(out) and file != "-" and os.path.samefile(file, out):
        raise Usage(f"--out would overwrite {file}", because="it is the document itself", hint="name another file")
    if saved.state is not None:
        raise Usage(f"{file} is a plan already", hint=f"`iommuctl apply {file}` carries it out")
    wanted = read(saved.source)
    iommu = session.iommu
    iommu.dry_run = True
    with progress("planning") as told:
        found = apply(iommu, saved.source, wanted, prune=prune, progress=told).plan
    if out is not None and not session.dry_run:
        _save(out, saved._replace(prune=prune, state=found.state))
    if session.json:
        session.document(_document(found))
    elif not session.quiet:
        _show(session.out, found)
        if out is not None and not session.dry_run:
            session.out.line(("", f"written to {out}: `iommuctl apply {out}` does exactly this"))
    if found and detailed_exitcode:
        raise typer.Exit(PENDING)


@app.command("apply")
def apply_(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Topology document, or what `plan --out` wrote; - is stdin.", show_default=False
        ),
    ],
    *,
    prune: Prune = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Do what can be done, where else one failure undoes all.")
    ] = False,
) -> None:
    """Make the state what a document says: all of it, or nothing when a part fails.

    What is there already stays untouched, so it can be done again. What the document leaves out stays as it is.
    """
    from iommuctl.plan.applying import apply, apply_each
    from iommuctl.plan.reading import read

    session = session_of(ctx)
    _check_alone(session, "apply")
    saved = _load(file)
    if saved.state is not None and (prune or keep_going):
        raise Usage(f"{file} is a plan", because="it says by itself what is to be done", hint="leave the option away")
    if keep_going and session.dry_run:
        raise Usage("--keep-going has no dry run", because="each step takes effect by itself", hint="use `plan`")
    wanted = read(saved.source)
    iommu = session.iommu
    with progress("applying") as told:
        if keep_going:
            done = apply_each(iommu, saved.source, wanted, prune=prune, progress=told)
        else:
            done = apply(iommu, saved.source, wanted, prune=saved.prune or prune, planned=saved.state, progress=told)
    iommu.last = done.outcome
    _report(session, done)
    if done.failures:
        raise typer.Exit(max(failure.error.exit for failure in done.failures))


@app.command("export")
def export(ctx: typer.Context) -> None:
    """Print the state as a document that `apply` takes: TOML, or JSON with -j."""
    from iommuctl.plan import current, writing

    session = session_of(ctx)
    document = current.describe(session.iommu)
    if session.json:
        session.document(writing.plain(document))
    else:
        session.out.raw(writing.text(document))


@app.command("recover")
def recover(
    ctx: typer.Context,
    forget: Annotated[bool, typer.Option("--forget", help="Forget every object instead of building it again.")] = False,
) -> None:
    """Build again what was lost: the kernel's objects, or damaged tables of a simulated machine.

    Does nothing where nothing is lost. Objects of the kernel are lost with the process that kept them; memory without
    a file behind it comes back empty. A simulated machine is made anew with all its objects when `check` finds a
    problem; its memory is empty then. With --forget there are no objects afterwards: what is left of them is not
    touched.
    """
    session = session_of(ctx)
    _check_alone(session, "recover")
    if session.iommu.is_real:
        _recover_real(session, forget=forget)
    else:
        _recover_simulated(session, forget=forget)


def _recover_real(session: Session, *, forget: bool) -> None:
    iommu = session.iommu
    because = iommu.lost()
    if not because:
        session.changed("nothing is lost: the kernel has what it should", {"changed": False})
        return
    with iommu.reading():
        domains = iommu.domains()
        made = {
            "memories": len(iommu.memories()),
            "domains": len(domains),
            "mappings": sum(len(iommu.mappings(domain.name)) for domain in domains),
            "slots": len(iommu.slots()),
        }
    words = ", ".join(f"{count} {name if count != 1 else SINGULAR[name]}" for name, count in made.items())
    if forget:
        iommu.forget_lost()
        session.changed(f"forgotten: {words}", {"changed": True, "lost": because, "forgotten": made})
        return
    told = iommu.rebuild_lost()
    iommu.last = iommu.last._replace(warnings=(*iommu.last.warnings, *told))
    session.changed(f"made again: {words}", {"changed": True, "lost": because, "made": made})


def _recover_simulated(session: Session, *, forget: bool) -> None:
    from iommuctl.plan.applying import rebuild

    iommu = session.iommu
    if not _is_damaged(session, forget=forget):
        session.changed("nothing is lost: the tables hold what they should", {"changed": False})
        return
    if forget:
        iommu.reset()
        session.changed("every object is forgotten; the machine is as it was made", {"changed": True})
        return
    done = rebuild(iommu)
    iommu.last = done.outcome
    session.changed(
        f"the machine is made anew with its {len(done.plan.changes)} objects; its memory is zero", {"changed": True}
    )


def _is_damaged(session: Session, *, forget: bool) -> bool:
    try:
        return bool(session.iommu.check())
    except StateDamaged:
        # Without its memory a machine can be forgotten, but not be made again.
        if forget:
            return True
        raise


def _check_alone(session: Session, command: str) -> None:
    """Documents are tried and applied, and machines rebuilt, in transactions of their own."""
    if session.iommu.in_transaction:
        raise Usage(
            f"{command} stands in a batch with --atomic",
            because="it is all or nothing by itself",
            hint="leave --atomic away, or give the command by itself",
        )


def _load(file: str) -> "SavedPlan":
    from iommuctl.plan.saved import load
    from iommuctl.plan.source import LARGEST

    hint = "a document is what `iommuctl export` prints"
    try:
        with opened(file) as stream:
            text = stream.read(LARGEST + 1)
    except UnicodeDecodeError as error:
        raise not_text(file, hint) from error
    return load(file, text)


def _save(path: str, plan: "SavedPlan") -> None:
    from iommuctl.plan.saved import dump

    with open(path, "w", encoding="utf-8") as file:
        file.write(dump(plan))


def _report(session: Session, done: "Applied") -> None:
    found, failures = done.plan, done.failures
    session.warn()
    if session.json:
        from iommuctl.cli import jsonout

        failed = [{**_change(failure.change), "error": described(failure.error)} for failure in failures]
        changed = done.changed and not session.dry_run
        parts: dict[str, Any] = {"changed": changed, **_document(found), "failed": failed}
        if session.dry_run:
            parts |= {"dry_run": True, **jsonout.outcome(session.iommu.last)}
        session.document(parts)
        return
    for failure in failures:
        show(failure.error, as_json=False, color=session.color)
    if session.quiet:
        return
    _show(session.out, found, failed={failure.change.key for failure in failures}, done=not session.dry_run)
    if session.dry_run:
        session.out.outcome(session.iommu.last, dry_run=True)


def _show(out: Output, found: "Plan", *, failed: Any = frozenset(), done: bool = False) -> None:
    changes = [change for change in found.changes if change.key not in failed]
    if found.machine:
        out.line(("good", "+"), ("", f" machine {found.machine.architecture or ''}"))
    for change in changes if not (out.terminal and len(changes) > ALL_LINES) else ():
        out.line(SYMBOLS[change.action], ("", f" {change.key}"), ("dim", f"  {_why(change)}"))
    counts = Counter[str](change.action for change in changes)
    counts["add"] += bool(found.machine)
    if not found:
        out.line(("", "nothing to do: all is as the document says"))
    elif done:
        words = ("added", "changed", "replaced", "removed")
        out.line(("", ", ".join(f"{counts[action]} {word}" for action, word in zip(SYMBOLS, words, strict=True))))
    else:
        out.line(("", ", ".join(f"{counts[action]} to {action}" for action in SYMBOLS)))


def _why(change: "Change") -> str:
    from iommuctl.plan.writing import values

    old = values(change.key, change.old) if change.old else {}
    new = values(change.key, change.new) if change.new else {}
    shown = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in ("iova", "pasid")]
    words = [_word(name, old.get(name), new.get(name), change) for name in shown]
    text = ", ".join(words) if change.action != "remove" else ""
    reason = change.because if change.action in ("replace", "remove") else ""
    return "; ".join(part for part in (text, reason) if part)


def _word(name: str, old: Any, new: Any, change: "Change") -> str:
    if isinstance(old, list) or isinstance(new, list):
        return _ranges(name, old or [], new or [])
    if change.old is None:
        return f"{name} {_value(new)}"
    return f"{name} {_value(old)} -> {_value(new)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _ranges(name: str, old: list[Any], new: list[Any]) -> str:
    """What a page table maps, as far as it differs."""
    gone = [f"-{one['iova']}+{one['size']}" for one in old if one not in new]
    come = [f"+{one['iova']}+{one['size']} -> {one['gpa']}" for one in new if one not in old]
    shown = [*gone, *come]
    more = f" and {len(shown) - FEW} more" if len(shown) > FEW else ""
    return f"{name} {' '.join(shown[:FEW])}{more}"


def _document(found: "Plan") -> dict[str, Any]:
    from iommuctl.plan.writing import machine_values

    changes = [_change(change) for change in found.changes]
    if found.machine:
        machine = {"action": "add", "kind": "machine", "name": found.machine.architecture}
        changes.insert(
            0, {**machine, "because": "it is not there yet", "old": None, "new": machine_values(found.machine)}
        )
    counts = Counter(change["action"] for change in changes)
    return {"changes": changes, **{action: counts[action] for action in SYMBOLS}}


def _change(change: "Change") -> dict[str, Any]:
    from iommuctl.plan.writing import values

    key = change.key
    named: dict[str, Any] = {"name": str(key.name)}
    if key.kind == "mapping":
        named = {"domain": key.name[0], "iova": f"{key.name[1]:#x}"}
    elif key.kind in ("attachment", "binding"):
        named = {"rid": str(key.name.rid), "pasid": key.name.pasid}
    return {
        "action": change.action,
        "kind": key.kind,
        **named,
        "because": change.because,
        "old": values(key, change.old) if change.old else None,
        "new": values(key, change.new) if change.new else None,
    }
