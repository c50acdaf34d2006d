# SPDX-License-Identifier: Apache-2.0
"""`iommuctl exec`: a program that uses devices, with the descriptors that iommuctl holds.

A device can be bound to an iommufd once, so whoever is to use it needs the descriptors of the one that it is bound to.
"""

import fcntl
import os
import re
import signal
import sys
from collections.abc import Mapping
from typing import Annotated, NoReturn

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.session import session_of
from iommuctl.errors import PermissionRefused, SystemFailed, Usage
from iommuctl.model import Rid
from iommuctl.spelling import RID

EXAMPLES = """
# a program that takes the numbers as arguments: a VMM, a driver in user space
iommuctl exec --device 0000:00:10.0 -- ./vmm --iommufd {iommufd} --device {vfio:0000:00:10.0}
# two devices, and a program that reads the numbers from its environment
iommuctl exec --device 0000:00:10.0 0000:00:11.0 -- ./driver
iommuctl exec --device 0000:00:10.0 -- sh -c 'ls -l /proc/self/fd/$IOMMUCTL_IOMMUFD'
"""

PLACEHOLDER = re.compile(r"\{(iommufd|vfio:([^{}]*))\}")
FIRST = 3
"""The lowest number that a program gets a descriptor at: those below are its standard streams."""

app = module_app("Run a program that uses devices, with their file descriptors.", EXAMPLES)


@app.command("exec")
def exec_(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PROGRAM…", help="After `--`: the program and its arguments, as they are.", show_default=False
        ),
    ],
    *,
    device: Annotated[
        list[str], typer.Option("--device", metavar="RID", help="A device that is bound.", show_default=False)
    ],
) -> None:
    """Run a program that uses devices, with their file descriptors.

    Real hardware only. The program inherits the iommufd, and of each --device the VFIO device that is bound to it. In
    its arguments {iommufd} and {vfio:RID} become the descriptors' numbers; the environment has them as IOMMUCTL_IOMMUFD
    and, for 0000:00:10.0, IOMMUCTL_VFIO_0000_00_10_0. It takes this process over: its exit code and its signals are its
    own. More RIDs may follow the first; `--` ends them.
    """
    session = session_of(ctx)
    if session.parent is not None:
        raise Usage("exec stands in a batch", because="it would end the batch", hint="give the command by itself")
    more = _leading_rids(words)
    program, *arguments = words[len(more) :] or [""]
    if not program:
        raise Usage("a program is missing", hint="it stands after `--`")
    rids = [Rid.parse(text) for text in (*device, *more)]
    _check_placeholders(arguments, rids)
    found = session.iommu.descriptors(rids)
    numbers = {name: fcntl.fcntl(descriptor, fcntl.F_DUPFD, FIRST) for name, descriptor in found.items()}
    try:
        arguments = [_filled(argument, numbers) for argument in arguments]
        variables = {variable(name): str(number) for name, number in numbers.items()}
        if session.dry_run:
            session.changed(
                f"would run {' '.join([program, *arguments])}",
                {"program": program, "arguments": arguments, "environment": variables},
            )
            return
        session.close()
        _become(program, arguments, variables)
    finally:
        for number in numbers.values():
            os.close(number)


def variable(name: str) -> str:
    """The environment variable that has the number of a descriptor: `iommufd`, or `vfio:RID`."""
    return "IOMMUCTL_" + re.sub(r"\W", "_", name, flags=re.ASCII).upper()


def _leading_rids(words: list[str]) -> list[str]:
    """The RIDs before the program: those that follow the first one of --device."""
    found = []
    for word in words:
        if not RID.fullmatch(word):
            break
        found.append(word)
    return found


def _check_placeholders(arguments: list[str], rids: list[Rid]) -> None:
    for argument in arguments:
        for match in PLACEHOLDER.finditer(argument):
            if match[2] is not None and Rid.parse(match[2]) not in rids:
                raise Usage(
                    f"{match[0]} stands for a device that the program does not get",
                    because=f"the devices are {', '.join(map(str, rids))}",
                    hint=f"add --device {Rid.parse(match[2])}",
                )


def _filled(argument: str, numbers: Mapping[str, int]) -> str:
    def number(match: re.Match[str]) -> str:
        name = "iommufd" if match[2] is None else f"vfio:{Rid.parse(match[2])}"
        return str(numbers[name])

    return PLACEHOLDER.sub(number, argument)


def _become(program: str, arguments: list[str], variables: Mapping[str, str]) -> NoReturn:
    """Raises SystemFailed, PermissionRefused where the program cannot be run."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Python ignores these, and what is ignored stays so in the program.
    ignored = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    try:
        os.execvpe(program, [program, *arguments], {**os.environ, **variables})
    except OSError as error:
        for number, handler in ignored.items():
            signal.signal(number, handler)
        kind = PermissionRefused if isinstance(error, PermissionError) else SystemFailed
        reason = error.strerror or str(error)
        raise kind(f"{program} cannot be run", because=reason[:1].lower() + reason[1:]) from error
