"""Profiles of every generation of msServiceProfiler, and recorded iterations, read exactly."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from trainables.latency import IterationRecord, write_records
from trainables.latency.imports import Framework, Imported, read_recordings
from trainables.simulation import Chunk

REQUESTS = "http_rid,recv_token_size,reply_token_size\n7,100,3\n8,40,2\n"
"""Two requests: prompts of 100 and 40 tokens, answers of 3 and 2."""


def only(imported: Imported) -> Sequence[IterationRecord]:
    assert len(imported.sources) == 1
    return imported.sources[0].records


def contents(records: Iterable[IterationRecord]) -> list[tuple[object, ...]]:
    return [(one.prefills, one.decodes, round(one.seconds, 9)) for one in records]


def listed(**tokens: int) -> str:
    return str([{"rid": rid[1:], "iter": count} for rid, count in tokens.items()])


def sized(**tokens: int) -> str:
    return str([{"rid": rid[1:], "iter_size": count} for rid, count in tokens.items()])


def database(
    folder: Path,
    batches: Iterable[tuple[str, str, float, float]] = (),
    runs: Iterable[tuple[int, str, int, float, float]] = (),
    members: Iterable[tuple[int, str, int]] = (),
    requests: str = REQUESTS,
) -> Path:
    """A profiler.db of batches (name, res_list, start, end), forwards (batch, name, pid, start,
    end) and requests of batches (batch, rid, iter), with request.csv beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "profiler.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE batch (name, res_list, start_time, end_time)")
        made.execute("CREATE TABLE batch_exec (batch_id, name, pid, start, end)")
        made.execute("CREATE TABLE batch_req (batch_id, req_id, rid, iter, block)")
        made.executemany("INSERT INTO batch VALUES (?, ?, ?, ?)", batches)
        made.executemany("INSERT INTO batch_exec VALUES (?, ?, ?, ?, ?)", runs)
        rows = [(batch, 0, rid, step, 5) for batch, rid, step in members]
        made.executemany("INSERT INTO batch_req VALUES (?, ?, ?, ?, ?)", rows)
    made.close()
    (folder / "request.csv").write_text(requests)
    return path


MINDIE = [
    ((Chunk(100),), (), 0.08),
    ((Chunk(40),), (100,), 0.05),
    ((), (101, 40), 0.02),
]
"""What the two requests' iterations are: request 8 arrives while 7 decodes."""


def test_a_mindie_database_is_read_by_batch_numbers(tmp_path: Path) -> None:
    """Forwards are stored in another order than batches; two ranks computed the first."""
    database(
        tmp_path,
        runs=[
            (3, "forward", 10, 300_000, 320_000),
            (1, "forward", 10, 100_000, 180_000),
            (1, "forward", 11, 101_000, 180_500),
            (2, "forward", 10, 200_000, 250_000),
            (2, "sample", 10, 250_000, 290_000),
        ],
        members=[(1, "7", 0), (2, "7", 1), (2, "8", 0), (3, "7", 2), (3, "8", 1)],
    )
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == MINDIE
    assert [one.at for one in only(imported)] == pytest.approx([0.1, 0.2, 0.3])
    assert imported.replies == (3, 2)
    assert not imported.faults
    assert not imported.dropped


@pytest.mark.parametrize("unit", [1.0, 1000.0], ids=["microseconds", "milliseconds"])
def test_a_database_without_batch_numbers_is_read_by_time(tmp_path: Path, unit: float) -> None:
    """The second forward was not recorded: pairing by row would have given the third its batch."""
    begin = 1.7e15
    database(
        tmp_path,
        batches=[
            ("BatchSchedule", listed(r7=0), begin / unit, (begin + 50) / unit),
            ("modelExec", listed(r7=0), begin / unit, (begin + 90_000) / unit),
            ("BatchSchedule", listed(r7=1, r8=0), begin / unit, (begin + 100_000) / unit),
            ("BatchSchedule", listed(r7=2, r8=1), begin / unit, (begin + 200_000) / unit),
        ],
        runs=[
            (0, "forward", 10, begin + 5_000, begin + 85_000),
            (0, "forward", 10, begin + 205_000, begin + 225_000),
        ],
    )
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == [MINDIE[0], MINDIE[2]]
    assert imported.dropped == {"a batch without a recorded forward": 1}


def test_a_vllm_database_tells_tokens(tmp_path: Path) -> None:
    """A prompt in two chunks; a prompt of which the prefix cache held 24 tokens; a preemption,
    after which all that was known is computed again."""
    sizes = [
        sized(r7=64),
        sized(r7=36),
        sized(r7=1, r8=16),
        sized(r7=1, r8=1),
        sized(r8=1),
        sized(r7=102),
        sized(r7=1),
    ]
    times = [1000.0 * number for number in range(len(sizes))]
    database(
        tmp_path,
        batches=[
            ("batchFrameworkProcessing", size, at, at + 10)
            for size, at in zip(sizes, times, strict=True)
        ],
        runs=[(0, "forward", 1, at + 100, at + 600) for at in times],
    )
    assert contents(only(read_recordings(tmp_path, "vllm"))) == [
        ((Chunk(64, 0),), (), 5e-4),
        ((Chunk(36, 64),), (), 5e-4),
        ((Chunk(16, 24),), (100,), 5e-4),
        ((), (101, 40), 5e-4),
        ((), (41,), 5e-4),
        ((Chunk(102, 0),), (), 5e-4),
        ((), (102,), 5e-4),
    ]


def test_the_wrong_type_is_noticed_and_the_profile_is_read(tmp_path: Path) -> None:
    database(
        tmp_path,
        batches=[("BatchSchedule", sized(r7=100), 0, 10)],
        runs=[(0, "forward", 1, 100, 600)],
    )
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == [((Chunk(100),), (), 5e-4)]
    assert "no profile of mindie" in imported.faults[0]


def public(folder: Path, batch: str, forward: str | None = None, requests: str = REQUESTS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batch.csv").write_text(batch)
    (folder / "request.csv").write_text(requests)
    if forward is not None:
        (folder / "forward.csv").write_text(forward)


BATCHES = (
    "name,res_list,start_datetime,during_time(ms),batch_type,batch_size,dp_rank,"
    "start_time(ms),end_time(ms)\n"
    f'BatchSchedule,"{listed(r7=0)}",x,1,Prefill,1,0,10,11\n'
    f'BatchSchedule,"{listed(r7=1, r8=0)}",x,1,"Prefill,Decode",2,0,110,111\n'
    f'modelExec,"{listed(r7=1, r8=0)}",x,70,Decode,2,0,111,181\n'
    f'BatchSchedule,"{listed(r7=2, r8=1)}",x,1,Decode,2,0,210,211\n'
)
FORWARDS = (
    "name,relative_start_time(ms),during_time(ms),batch_size,dp_rank,prof_id,hostname,"
    "start_time(ms),end_time(ms)\n"
)


def test_the_public_csv_files_are_paired_by_time(tmp_path: Path) -> None:
    rows = (
        "forward,0,80,1,0,a,h,12,92\nforward,0,20,2,0,a,h,212,232\nforward,0,50,2,0,a,h,112,162\n"
    )
    public(tmp_path, BATCHES, FORWARDS + rows)
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == MINDIE
    assert [one.at for one in only(imported)] == pytest.approx([0.012, 0.112, 0.212])
    assert not imported.faults


def test_a_forward_of_another_size_is_left_out(tmp_path: Path) -> None:
    rows = "forward,0,80,1,0,a,h,12,92\nforward,0,50,9,0,a,h,112,162\nforward,0,9,1,0,a,h,5,9\n"
    public(tmp_path, BATCHES, FORWARDS + rows)
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == [MINDIE[0]]
    assert imported.dropped == {
        "a forward whose batch was not recorded": 1,
        "a forward of another size than the batch that was made before it": 1,
        "a batch without a recorded forward": 2,
    }


def test_data_parallel_replicas_are_not_mixed_up(tmp_path: Path) -> None:
    """Both replicas schedule at nearly the same time."""
    batch = (
        "name,res_list,batch_size,dp_rank,start_time(ms),end_time(ms)\n"
        f'BatchSchedule,"{listed(r7=0)}",1,0,10,11\n'
        f'BatchSchedule,"{listed(r8=0)}",1,1,10,11.5\n'
    )
    rows = "forward,0,80,1,0,a,h,12,92\nforward,0,40,1,1,b,h,12,52\n"
    public(tmp_path, batch, FORWARDS + rows)
    assert sorted(contents(only(read_recordings(tmp_path, "mindie")))) == [
        ((Chunk(40),), (), 0.04),
        ((Chunk(100),), (), 0.08),
    ]


def test_without_forwards_executions_are_taken(tmp_path: Path) -> None:
    public(tmp_path, BATCHES)
    assert contents(only(read_recordings(tmp_path, "mindie"))) == [
        ((Chunk(40),), (100,), 0.07),
    ]


def test_the_older_names_of_the_columns(tmp_path: Path) -> None:
    """No unit in the header means microseconds."""
    public(
        tmp_path,
        "batch_type,batch_size,forward_time,batch_end_time(ms),res_list\n"
        f'Prefill,1,80000,100,"{listed(r7=0)}"\n'
        f'Decode,2,20000,320,"{listed(r7=2, r8=1)}"\n'
        f'Decode,2,50000,250,"{listed(r7=1, r8=0)}"\n',
        requests="request_id,request_recv_token_size,request_reply_token_size,"
        "request_execution_time(ms),first_token_latency(ms)\n7,100,3,5,5\n8,40,2,5,5\n",
    )
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == MINDIE
    assert imported.replies == (3, 2)


def test_the_oldest_table_has_a_line_for_each_request(tmp_path: Path) -> None:
    (tmp_path / "profile.csv").write_text(
        "batch_type,batch_size,forward_time,batch_end_time(ms),request_recv_token_size,"
        "request_reply_token_size,need_blocks,request_execution_time(ms),first_token_latency(ms)\n"
        "Prefill,2,80000,100,100,3,1,320.5,80.25\n"
        "Prefill,2,80000,100,40,2,1,250.5,81.5\n"
        "Decode,2,50000,250,100,3,1,320.5,80.25\n"
        "Decode,2,50000,250,40,2,1,250.5,81.5\n"
        "Decode,1,20000,320,100,3,1,320.5,80.25\n"
        "Decode,2,20000,380,100,3,1,320.5,80.25\n"
    )
    imported = read_recordings(tmp_path, "mindie")
    assert contents(only(imported)) == [
        ((Chunk(100), Chunk(40)), (), 0.08),
        ((), (100, 40), 0.05),
        ((), (101,), 0.02),
    ]
    assert imported.replies == (3, 2)
    assert imported.dropped == {"a batch of which not all requests were recorded": 1}


FEATURES = (
    "\"('batch_stage', 'batch_size', 'total_need_blocks', 'total_prefill_token', 'max_seq_len', "
    "'model_execute_time')\",\"('input_length', 'need_blocks', 'output_length')\"\n"
)


def test_the_table_of_features(tmp_path: Path) -> None:
    folder = tmp_path / "output_csv" / "pid_12"
    folder.mkdir(parents=True)
    (folder / "feature.csv").write_text(
        FEATURES + '"(\'prefill\', 1.0, 19, 100, 100, 80000.0)","((100, 19, 0),)"\n'
        '"(\'decode\', 2.0, 19, 140, 100, 20000.5)","((100, 19, 2), (40, 3, 1))"\n'
    )
    assert contents(only(read_recordings(tmp_path, "mindie"))) == [
        ((Chunk(100),), (), 0.08),
        ((), (101, 40), 0.0200005),
    ]


def test_a_table_of_features_beside_its_database_is_not_read_twice(tmp_path: Path) -> None:
    database(tmp_path, runs=[(1, "forward", 10, 0, 80_000)], members=[(1, "7", 0)])
    folder = tmp_path / "output_csv" / "pid_10"
    folder.mkdir(parents=True)
    (folder / "feature.csv").write_text(
        FEATURES + '"(\'prefill\', 1.0, 19, 100, 100, 80000.0)","((100, 19, 0),)"\n'
    )
    assert len(only(read_recordings(tmp_path, "mindie"))) == 1


@pytest.mark.parametrize("framework", ["mindie", "vllm"])
def test_recorded_iterations_with_the_engines_settings(
    tmp_path: Path, framework: Framework
) -> None:
    records = [IterationRecord((Chunk(5, 2),), (9, 8), 0.25, 3.5), IterationRecord((), (1,), 0.5)]
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = tmp_path / "a" / "b" / "iterations.jsonl"
    write_records(path, records)
    path.with_suffix(".json").write_text(json.dumps({"max_num_seqs": 8}))
    imported = read_recordings(tmp_path, framework)
    assert list(only(imported)) == records
    assert imported.sources[0].settings == {"max_num_seqs": 8}


def test_other_json_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text('{"timestamp": 1, "input_length": 5}\n')
    imported = read_recordings(tmp_path, "vllm")
    assert not imported.sources
    assert not imported.faults
