# SPDX-License-Identifier: Apache-2.0
"""`iommuctl check`: do the tables in memory hold what the rows say?"""

import typer

from iommuctl.cli.command import module_app
from iommuctl.cli.session import session_of

EXAMPLES = """
iommuctl check && echo consistent
iommuctl check -j | jq -r '.problems[]'
"""

app = module_app("Compare the tables with what they should hold.", EXAMPLES)


@app.command("check")
def check(ctx: typer.Context) -> None:
    """Compare the tables with what they should hold.

    Reads every table in memory. Exits 1 when something disagrees.
    """
    session = session_of(ctx)
    problems = session.iommu.check()
    if session.json:
        session.document({"ok": not problems, "problems": problems})
    else:
        for problem in problems:
            session.out.line(("bad", "problem: "), ("", problem))
        if not problems and not session.quiet:
            used = session.iommu.backend_name is not None
            held = (
                "the kernel has the objects" if used and session.iommu.is_real else "the tables hold what they should"
            )
            what = held if used else f"there is no state in {session.iommu.state} yet"
            session.out.line(("good", "ok"), ("", f": {what}"))
    if problems:
        raise typer.Exit(1)
