"""``report``: what came of a run, as a page, as pictures, live; several runs side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tuner.cli._options import add_json

if TYPE_CHECKING:
    from tuner.report import RunData


def add_commands(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="what came of a run, as one page; several runs side by side",
        description="Writes report.html into the run's folder, a page that needs no network. "
        "With several folders it writes compare.html into the current one.",
    )
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="<storage>/<name>")
    report.add_argument("--output", type=Path, metavar="FILE", help="write the page there")
    report.add_argument(
        "--export", type=Path, metavar="DIR", help="also write every chart as SVG and PNG"
    )
    report.add_argument(
        "--serve", action="store_true", help="show it on loopback, renewed while the run goes on"
    )
    report.add_argument("--port", type=int, default=0, help="of --serve (default: any free one)")
    add_json(report)
    report.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    from tuner._run import RunError, resolve_run_folder

    folders = [resolve_run_folder(folder.absolute()) for folder in arguments.folders]
    if arguments.serve:
        if len(folders) > 1:
            raise RunError("--serve shows one run; name one folder")
        return _serve(folders[0], arguments.port)
    try:
        return _write(folders, arguments)
    except (OSError, ImportError) as error:
        print(f"error: no report: {error}", file=sys.stderr)
        return 1


def _write(folders: list[Path], arguments: argparse.Namespace) -> int:
    from tuner.report import comparison_page, export_charts, read_run, report_page, write_page

    runs = [read_run(folder) for folder in folders]
    several = len(runs) > 1
    page = comparison_page(runs) if several else report_page(runs[0])
    file = arguments.output or (Path("compare.html") if several else folders[0] / "report.html")
    write_page(page, file.absolute())
    pictures = [] if arguments.export is None else export_charts(page, arguments.export)
    console = Console(highlight=False, stderr=arguments.json)
    for run in runs:
        _say(run, console, whole=not several)
    if pictures:
        console.print(f"{len(pictures)} pictures in {arguments.export}", soft_wrap=True)
    console.print(f"report: {file}", soft_wrap=True)
    if arguments.json:
        _print_json(runs, file, pictures)
    return 0


def _say(run: RunData, console: Console, *, whole: bool) -> None:
    """What ``run`` printed at its end; of a run without an end, the status."""
    from tuner._report import print_result
    from tuner._status import describe_status
    from tuner.report import headline, result_of

    result = result_of(run)
    if not whole:
        console.print(f"{run.name}: {run.state}: {headline(run)}", soft_wrap=True, markup=False)
    elif result is not None:
        print_result(result, console)
    else:
        console.print(describe_status(dict(run.status)), soft_wrap=True, markup=False)


def _print_json(runs: list[RunData], file: Path, pictures: list[Path]) -> None:
    import json

    results = [dict(run.result) or {"verdict": run.state} for run in runs]
    document = {
        "report": str(file.absolute()),
        "pictures": [str(picture) for picture in pictures],
        "runs": [{"name": run.name, **one} for run, one in zip(runs, results, strict=True)],
    }
    print(json.dumps(document, ensure_ascii=False))


def _serve(folder: Path, port: int) -> int:
    from tuner.report import ReportServer

    try:
        server = ReportServer(folder, port)
    except OSError as error:
        print(f"error: port {port}: {error.strerror}; name another one", file=sys.stderr)
        return 1
    print(f"report of {folder} on {server.url} (Ctrl-C ends it)", flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        return 0
    finally:
        server.close()
    return 0


def write_after_run(folder: Path) -> None:
    """The report of a run that has just ended. The run is safe on disk, whatever happens here."""
    try:
        from tuner.report import write_report

        write_report(folder)
    except Exception as error:
        print(f"no report.html: {error}", file=sys.stderr)
