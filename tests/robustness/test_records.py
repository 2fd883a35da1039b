"""Records survive whatever cuts a run off, and say so where they are damaged."""

from __future__ import annotations

import random
import signal
import time

import numpy as np
import pytest
from recorded import forkserver, made, resume, rows, run, verdicts

from lipcert.errors import UsageError
from lipcert.robustness.records.lines import read_records
from lipcert.robustness.records.merge import merge, read_folder
from lipcert.robustness.verdicts import Status

SAME = (
    "samples",
    "clean_count",
    "certified_count",
    "attacked_count",
    "unknown_count",
    "mean_certified_radius",
    "curve",
    "histogram",
    "per_class",
    "level",
)


class Cut(Exception):
    """The run is cut off here."""


def cut_after(batches):
    calls = iter(range(10**6))

    def progress(done, total):
        if next(calls) == batches:
            raise Cut

    return progress


# --- whatever the batches, shards and data


@pytest.mark.parametrize("other", [{"batch_size": 7}, {"batch_size": 60}, {"shard": "2/3"}, {"time_limit": 1e6}])
def test_what_changes_no_verdict_may_change(network, data, tmp_path, other):
    with pytest.raises(Cut):
        run(network, data, folder=tmp_path, batch_size=10, progress=cut_after(3))
    before = rows(tmp_path)
    assert len(before) == 30
    report = run(network, data, folder=tmp_path, resume=True, **other)
    after = rows(tmp_path)
    assert {index: after[index] for index in before} == before
    wanted = set(range(1, 60, 3)) | set(before) if "shard" in other else set(range(60))
    assert set(after) == wanted
    assert report.samples == (20 if "shard" in other else 60)


def test_a_folder_grows_with_the_data(network, data, tmp_path):
    run(network, data, folder=tmp_path, limit=20)
    first = rows(tmp_path)
    steps = []
    grown = run(network, data, folder=tmp_path, resume=True, progress=lambda done, total: steps.append((done, total)))
    assert steps[0] == (20, 60) and grown.samples == 60
    assert {index: row for index, row in rows(tmp_path).items() if index < 20} == first
    assert read_records(tmp_path / "records.jsonl").log.heading.total == 60
    again = run(network, data, folder=tmp_path, resume=True, limit=20)
    assert again.samples == 20 and again.clean_count == sum(row["label"] == row["predicted"] for row in first.values())
    assert len(rows(tmp_path)) == 60  # nothing is lost


def test_shards_of_any_number_are_used(network, data, tmp_path):
    whole = run(network, data, folder=made(tmp_path / "whole"))
    run(network, data, folder=made(tmp_path / "cut"), shard="2/5")
    run(network, data, folder=made(tmp_path / "cut" / "shard-1-of-2"), shard="1/2")
    run(network, data, folder=made(tmp_path / "cut" / "shard-3-of-4"), shard="3/4")
    steps = []
    report = run(
        network, data, folder=tmp_path / "cut", resume=True, progress=lambda done, total: steps.append((done, total))
    )
    assert steps[0] == (len(set(range(0, 60, 2)) | set(range(2, 60, 4)) | set(range(1, 60, 5))), 60)
    for name in SAME:
        if name not in ("mean_certified_radius", "curve", "histogram"):
            assert getattr(report, name) == getattr(whole, name)
    assert report.mean_certified_radius == pytest.approx(whole.mean_certified_radius, rel=1e-12)
    assert verdicts(tmp_path / "cut") == verdicts(tmp_path / "whole")  # all of them in one file now
    assert not list((tmp_path / "cut").glob("shard-*/records.jsonl"))


def test_another_data_set_is_refused(network, data, tmp_path):
    run(network, data, folder=tmp_path)
    before = (tmp_path / "records.jsonl").read_bytes()
    images, labels = data[0].copy(), data[1]
    images[17, 3] = np.nextafter(images[17, 3], np.float32(9))
    with pytest.raises(UsageError, match="sample 17"):
        run(network, (images, labels), folder=tmp_path, resume=True)
    other = labels.copy()
    other[23] = (other[23] + 1) % 4
    with pytest.raises(UsageError, match="sample 23"):
        run(network, (data[0], other), folder=tmp_path, resume=True)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_time_is_kept(network, data, tmp_path):
    with pytest.raises(Cut):
        run(network, data, folder=tmp_path, batch_size=10, progress=cut_after(3))
    (first,) = read_records(tmp_path / "records.jsonl").log.parts.values()
    report = run(network, data, folder=tmp_path, batch_size=10, resume=True)
    parts = read_records(tmp_path / "records.jsonl").log.parts
    assert len(parts) == 2 and sorted(part.samples for part in parts.values()) == [30, 30]
    assert report.seconds > sum(part.elapsed for part in parts.values()) > first.elapsed
    for stage in report.per_method:
        assert stage.seconds == pytest.approx(sum(part.seconds[stage.method] for part in parts.values()))
    assert report.provenance.started == first.started
    assert any("2 processes" in note for note in report.notes)


def test_what_time_left_open_is_done_later(network, data, tmp_path):
    report = run(network, data, folder=tmp_path, time_limit=0.0)
    assert report.samples == 60 and any("time limit" in note for note in report.notes)
    open_ = report.unknown_count["0.5"]
    assert open_ == sum(row["pending"] != "" for row in rows(tmp_path).values()) > 0
    resumed = run(network, data, folder=tmp_path, resume=True)
    assert not any(row["pending"] for row in rows(tmp_path).values()) and not any(
        "time limit" in note for note in resumed.notes
    )
    whole = run(network, data, folder=made(tmp_path / "whole"))
    assert verdicts(tmp_path) == verdicts(tmp_path / "whole")
    assert resumed.certified_count == whole.certified_count


def test_two_runs_do_not_write_one_file(network, data, tmp_path):
    def meanwhile(done, total):
        for settings in ({}, {"resume": True}, {"resume": True, "limit": 12}):
            with pytest.raises(UsageError, match="another run is writing"):
                run(network, data, folder=tmp_path, **settings)

    report = run(network, data, folder=tmp_path, progress=meanwhile, limit=12)
    assert report.samples == 12 and len(rows(tmp_path)) == 12


# --- damage


@pytest.mark.parametrize("keep", [1, 40, 300, 5000, -1, -30, -200])
def test_a_file_cut_anywhere_goes_on(network, data, tmp_path, keep):
    whole = run(network, data, folder=tmp_path, batch_size=10)
    path, done = tmp_path / "records.jsonl", verdicts(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    resumed = run(network, data, folder=tmp_path, resume=True, batch_size=10)
    assert verdicts(tmp_path) == done
    for name in SAME:
        assert getattr(resumed, name) == getattr(whole, name)


def _lines(path):
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: b"garbage\n",
        lambda line: line[:-20] + b"\n",
        lambda line: b"\x00" * 50 + b"\n",
        lambda line: b"[]\n",
        lambda line: b"7\n",
        lambda line: line.replace(b'"status":["', b'"status":["x'),
        lambda line: line.replace(b'"radius":', b'"radius":-'),
        lambda line: line.replace(b'"index":', b'"index":1.'),
        lambda line: line.replace(b'"status":[', b'"status":["unknown",'),
    ],
)
def test_a_damaged_line_is_named(network, data, tmp_path, spoil):
    run(network, data, folder=tmp_path, batch_size=10, eps=(0.1,))
    path = tmp_path / "records.jsonl"
    lines = _lines(path)
    number = next(n for n, line in enumerate(lines, 1) if b'"index":25' in line)
    lines[number - 1] = spoil(lines[number - 1])
    path.write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match=rf"records\.jsonl' is damaged in line {number} ") as caught:
        run(network, data, folder=tmp_path, resume=True, eps=(0.1,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["number", "missing", "twice"])
def test_what_still_reads_well_is_noticed_by_the_checksum(network, data, tmp_path, how):
    run(network, data, folder=tmp_path, batch_size=10)
    path = tmp_path / "records.jsonl"
    lines = _lines(path)
    place = next(n for n, line in enumerate(lines) if b'"index":25' in line)
    end = next(n for n, line in enumerate(lines) if n > place and b'"part"' in line)
    match how:
        case "number":
            lines[place] = lines[place].replace(b'"predicted":', b'"predicted":1')
        case "missing":
            del lines[place]
            end -= 1
        case "twice":
            lines.insert(place, lines[place])
            end += 1
    path.write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match=rf"line {end + 1} .*checksum"):
        run(network, data, folder=tmp_path, resume=True)


def test_records_of_an_older_version_are_refused(network, data, tmp_path):
    (tmp_path / "records.jsonl").write_text('{"schema": "lipcert.records/v1", "digest": "00", "eps": [0.1]}\n')
    with pytest.raises(UsageError, match="not a file of this version's records"):
        run(network, data, folder=tmp_path, resume=True)


# --- kill -9


def _killed(process, delay):
    """Kill a process after a while; return whether it had ended before."""
    process.start()
    process.join(delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def _count(folder):
    found = read_records(folder / "records.jsonl")
    return 0 if found is None else len(found.log.verdicts)


@pytest.mark.parametrize("method", ["crown", pytest.param("cascade", marks=pytest.mark.slow)])
def test_twenty_times_kill_9(network, data, tmp_path, method):
    """Killed at random moments, each time with another batch size; what is there only grows, and ends up the same."""
    begin = time.perf_counter()
    whole = run(network, data, folder=made(tmp_path / "whole"), batch_size=10, method=method)
    span = time.perf_counter() - begin
    context, dice = forkserver(), random.Random(0)
    kills, inside, number = 0, 0, 0
    while kills < 20:
        number += 1
        folder, done = made(tmp_path / f"killed{number}"), False
        while kills < 20 and not done:
            before = _count(folder)
            arguments = network, data, folder, dice.choice([1, 2, 3, 7]), method
            done = _killed(context.Process(target=resume, args=arguments), dice.uniform(0.1, 1.2) * span)
            assert before <= _count(folder)
            kills += not done
            inside += not done and 0 < _count(folder) < 60
        resumed = run(network, data, folder=folder, batch_size=dice.choice([4, 60]), resume=True, method=method)
        assert verdicts(folder) == verdicts(tmp_path / "whole")
        for name in ("certified_count", "attacked_count", "unknown_count", "per_class", "level", "samples"):
            assert getattr(resumed, name) == getattr(whole, name)
    assert inside >= 5  # kills in the midst of the work, not only before and after it


def test_kill_9_under_a_time_limit(network, data, tmp_path):
    """Rounds through all samples: what earlier rounds found of open samples is kept, with what is left to try."""
    begin = time.perf_counter()
    run(network, data, folder=made(tmp_path / "whole"), batch_size=10, method="crown")
    span = time.perf_counter() - begin
    context, dice, waiting = forkserver(), random.Random(1), 0
    for number in range(6):
        folder, decided = made(tmp_path / f"killed{number}"), 0
        for _ in range(3):
            arguments = network, data, folder, dice.choice([3, 7, 20]), "crown", 1000.0
            _killed(context.Process(target=resume, args=arguments), dice.uniform(0.2, 1.0) * span)
            logs = read_folder(folder)
            if logs:
                known = merge(logs).verdicts
                now, waiting = int((known.status != Status.UNKNOWN).sum()), waiting + int(known.open.any())
                assert now >= decided
                decided = now
        run(network, data, folder=folder, batch_size=dice.choice([4, 60]), resume=True, method="crown")
        assert verdicts(folder) == verdicts(tmp_path / "whole")
    assert waiting >= 3
