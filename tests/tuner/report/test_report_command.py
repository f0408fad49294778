"""``report`` and ``status --watch`` as they are typed, and the report's server."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from cluster import RunLock
from tests.tuner.report.chinese import chinese_run
from tests.tuner.report.folders import Folder, rates, serving, serving_run
from tests.tuner.runs import ENVIRONMENT
from tuner._status import read_status
from tuner._status_watch import drawn, watch_status
from tuner.cli import main
from tuner.cli._report import write_after_run
from tuner.report import ReportServer, export_charts, read_run, report_page


def fetch(url: str, host: str | None = None) -> str:
    request = urllib.request.Request(url, headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def test_it_writes_the_page_and_prints_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = serving_run(tmp_path / "run")
    assert main(["report", str(path)]) == 0
    said = capsys.readouterr().out
    assert "satisfied: the best of all" in said and f"report: {path}/report.html" in said
    assert (path / "report.html").is_file()


def test_programs_get_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = serving_run(tmp_path / "run")
    pictures = tmp_path / "pictures"
    assert main(["report", str(path), "--json", "--export", str(pictures)]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["report"] == f"{path}/report.html"
    assert document["runs"][0]["verdict"] == "satisfied"
    assert all(Path(picture).is_file() for picture in document["pictures"])


def test_several_runs_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [str(serving_run(tmp_path / name)) for name in ("one", "two", "three")]
    assert main(["report", *paths]) == 0
    assert "report: compare.html" in capsys.readouterr().out
    assert "3 runs" in (tmp_path / "compare.html").read_text()
    assert not (tmp_path / "one" / "report.html").exists()


def test_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no run is stored here" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = serving_run(tmp_path / "run")
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["report", str(path), "--output", str(blocked / "page.html")]) == 1
    assert "error: no report:" in capsys.readouterr().err


def test_a_run_is_not_hurt_by_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> Path:
        raise ValueError("a fault in the report")

    monkeypatch.setattr("tuner.report.write_report", fail)
    write_after_run(tmp_path)
    assert capsys.readouterr().err == "no report.html: a fault in the report\n"


def test_the_server_shows_what_is_new(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"a": 1}, rates(1.0))
    folder.ends("running", best={"a": 1})
    now = [0.0]
    shown = ReportServer(folder.path, clock=lambda: now[0])
    with RunLock(folder.path), shown as server:
        first = fetch(server.url)
        assert "Under way: 1 candidates measured" in first
        (live,) = re.findall(r'data-live="([^"]*)"', first)
        assert fetch(f"{server.url}version") == live
        folder.measured({"a": 2}, rates(2.0))
        assert fetch(f"{server.url}version") == live, "not more often than every two seconds"
        now[0] = 3.0
        assert fetch(f"{server.url}version") != live
        assert "Under way: 2 candidates measured" in fetch(server.url)
    assert not (folder.path / "report.html").exists()


def test_the_server_has_nothing_else_and_answers_only_this_machine(tmp_path: Path) -> None:
    with ReportServer(serving_run(tmp_path / "run")) as server:
        for path, host, status in (
            ("ledger.jsonl", None, 404),
            ("../run.json", None, 404),
            ("", "evil.test", 403),
            ("version", "127.0.0.1.evil.test:80", 403),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                fetch(server.url + path, host)
            assert refused.value.code == status
        assert server.url.startswith("http://127.0.0.1:")


def test_a_client_that_says_nothing_holds_nobody_up(tmp_path: Path) -> None:
    import socket

    with ReportServer(serving_run(tmp_path / "run")) as server:
        port = int(server.url.rsplit(":", 1)[1].strip("/"))
        with socket.create_connection(("127.0.0.1", port)):
            assert "</html>" in fetch(server.url)


def test_serve_says_where_and_ends_with_an_interrupt(tmp_path: Path) -> None:
    path = serving_run(tmp_path / "run")
    command = [sys.executable, "-m", "tuner", "report", str(path), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        (url,) = re.findall(r"http://\S+", process.stdout.readline())
        assert "</html>" in fetch(url)
        process.send_signal(2)
        assert process.wait(20) == 0


def test_serve_shows_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(serving_run(tmp_path / name)) for name in ("one", "two")]
    assert main(["report", *paths, "--serve"]) == 2
    assert "name one folder" in capsys.readouterr().err


def watched(folder: Folder, *, terminal: bool, sleeps: list[float]) -> str:
    """What ``status --watch`` prints of a run that ends while it is watched."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=200, height=40)

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        folder.measured({"a": 2}, rates(2.0))
        folder.ends("satisfied", best={"a": 2})

    watch_status(folder.path, console, sleep=sleep)
    return output.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_ends_with_the_run(tmp_path: Path, terminal: bool) -> None:
    folder = Folder(tmp_path / "run", serving())
    folder.measured({"a": 1}, rates(1.0))
    folder.ends("running", best={"a": 1})
    sleeps: list[float] = []
    with RunLock(folder.path):
        said = watched(folder, terminal=terminal, sleeps=sleeps)
    assert len(sleeps) == 1
    assert "run: satisfied" in said and "satisfied: the best of all" in said
    assert ("run: running" in said) == terminal


def test_watching_a_run_that_is_over_only_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = serving_run(tmp_path / "run")
    assert main(["status", "--watch", str(path)]) == 0
    assert "satisfied: the best of all" in capsys.readouterr().out


def test_the_picture_fits_the_terminal_whatever_there_is_to_tell() -> None:
    trial = {"number": 0, "kind": "candidate", "status": "measured", "seconds": 1.0}
    trial |= {"what": "w", "result": "r", "identity": "i" * 16}
    running = {"trial": "t", "kind": "candidate", "why": "w", "stage": "deploy", "stage_s": 1.0}
    excluded = [{"address": f"10.0.0.{n}", "at": "now", "reason": "r"} for n in range(4)]
    status = {
        "name": "r", "state": "running", "storage": "s", "counts": {"measured": 99},
        "elapsed_s": 9.0, "remaining_s": 9.0, "best": {"a": 1}, "trials": [trial] * 99,
        "running": [running] * 4, "nodes": {"living": 9, "width": 4, "excluded": excluded},
    }  # fmt: skip
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=30)
    assert 20 < len(drawn(status, console).plain.splitlines()) <= 30


def test_chinese_is_cut_where_the_terminal_ends(tmp_path: Path) -> None:
    status = read_status(chinese_run(tmp_path / "run"))
    word = "调度策略"
    row = {"number": 0, "kind": "candidate", "status": "measured", "seconds": 1.0}
    row |= {"what": word * 30, "result": f"satisfied: {word} 1", "identity": "i" * 16}
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=30)
    with console.capture() as said:
        console.print(Group(drawn({**status, "trials": [row]}, console)))
    lines = said.get().splitlines()
    assert max(map(cell_len, lines)) <= 60
    (cut,) = (line for line in lines if "#0" in line)
    assert cell_len(cut) >= 59 and cut.endswith("…") and f"satisfied: {word} 1" in cut


def test_a_terminal_without_chinese_letters_gets_their_numbers(tmp_path: Path) -> None:
    path = chinese_run(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "status", str(path)],
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("\\u5343\\u95ee")


def test_exported_charts_name_a_chinese_font_where_they_need_one(tmp_path: Path) -> None:
    for run, needed in ((chinese_run, True), (serving_run, False)):
        page = report_page(read_run(run(tmp_path / run.__name__)))
        files = export_charts(page, tmp_path / f"{run.__name__}-pictures")
        drawn = [file.read_text() for file in files if file.suffix == ".svg"]
        assert any("Noto Sans CJK SC" in text for text in drawn) == needed
