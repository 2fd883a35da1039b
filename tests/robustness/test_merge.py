"""Merging: a union, whatever the order and however often; equal to one run."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import made, run, verdicts
from small_networks import labelled, random_chain

from lipcert.errors import UsageError
from lipcert.robustness.records.lines import Log, read_records
from lipcert.robustness.records.merge import merge, missing, ranges, read_folder, write_records
from lipcert.robustness.records.runs import compare_runs
from lipcert.robustness.summary import make_report
from lipcert.robustness.verdicts import FIELDS, Status


def shards(network, data, tmp_path, count=3, **options):
    """The logs of a run in shards, each with its own batch size."""
    logs = []
    for part in range(1, count + 1):
        folder = made(tmp_path / str(part))
        run(network, data, folder=folder, shard=f"{part}/{count}", batch_size=4 + part, **options)
        logs += read_folder(folder)
    return logs


def same(one: Log, other: Log) -> bool:
    equal = (np.array_equal(getattr(one.verdicts, name), getattr(other.verdicts, name)) for name in FIELDS)
    return (
        all(equal) and np.array_equal(one.keys, other.keys) and (one.heading, one.parts) == (other.heading, other.parts)
    )


@pytest.mark.parametrize("count", [1, 2, 7])
def test_merged_shards_are_one_run(network, data, tmp_path, count):
    whole = run(network, data, folder=made(tmp_path / "whole"), batch_size=20)
    merged = make_report(merge(shards(network, data, tmp_path, count)))
    exact = ("samples", "clean_count", "clean_accuracy", "certified_count", "certified_accuracy", "attacked_count")
    for name in (*exact, "unknown_count", "per_class", "level", "eps", "norm", "method", "model", "per_class"):
        assert getattr(merged, name) == getattr(whole, name), name
    assert merged.mean_certified_radius == pytest.approx(whole.mean_certified_radius, rel=1e-12)
    assert [stage.decided for stage in merged.per_method] == [stage.decided for stage in whole.per_method]
    assert merged.histogram.counts == whole.histogram.counts
    assert merged.bound.bound == whole.bound.bound
    mine, theirs = merged.provenance, whole.provenance
    assert mine.samples_sha256 == theirs.samples_sha256 and mine.settings == theirs.settings
    assert (
        merged.seconds == sum(part.elapsed for part in merge(read_folder(tmp_path / "1")).parts.values()) or count > 1
    )


def test_one_batch_size_gives_the_same_radii_bit_for_bit(network, data, tmp_path):
    run(network, data, folder=made(tmp_path / "one"), batch_size=1)
    for part in (1, 2, 3):
        run(network, data, folder=made(tmp_path / str(part)), batch_size=1, shard=f"{part}/3")
    merged = merge([log for part in (1, 2, 3) for log in read_folder(tmp_path / str(part))])
    (one,) = read_folder(tmp_path / "one")
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(merged.verdicts, name), getattr(merge([one]).verdicts, name))
    assert make_report(merged).mean_certified_radius == make_report(merge([one])).mean_certified_radius


def test_order_and_repetition_change_nothing(network, data, tmp_path):
    logs = shards(network, data, tmp_path)
    whole = merge(logs)
    for order in itertools.permutations(logs):
        assert same(merge(order), whole)
    assert same(merge([*logs, *logs]), whole)
    assert same(merge([whole, whole]), whole)
    assert same(merge([merge(logs[:2]), logs[2]]), merge([logs[0], merge(logs[1:])]))
    assert same(merge([whole, logs[1]]), whole)


def test_what_is_merged_reads_again_and_can_be_merged_again(network, data, tmp_path):
    logs = shards(network, data, tmp_path)
    whole = merge(logs)
    path = made(tmp_path / "merged") / "records.jsonl"
    write_records(path, whole)
    again = merge([*read_folder(tmp_path / "merged"), logs[0]])
    checks = {name: part.model_copy(update={"check": 0}) for name, part in again.parts.items()}
    assert checks == {name: part.model_copy(update={"check": 0}) for name, part in whole.parts.items()}
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again.verdicts, name), getattr(whole.verdicts, name))
    first = path.read_bytes()
    write_records(path, again)
    assert path.read_bytes() == first


def test_a_merged_folder_goes_on(network, data, tmp_path):
    logs = shards(network, data, tmp_path)
    write_records(made(tmp_path / "merged") / "records.jsonl", merge(logs[1:]))
    report = run(network, data, folder=tmp_path / "merged", resume=True)
    run(network, data, folder=made(tmp_path / "whole"))
    assert verdicts(tmp_path / "merged") == verdicts(tmp_path / "whole") and report.samples == 60


def test_missing_samples_are_named(network, data, tmp_path):
    logs = shards(network, data, tmp_path)
    part = merge([logs[0], logs[2]])
    assert missing(part).tolist() == list(range(1, 60, 3))
    report = make_report(part)
    assert report.samples == 40 and report.provenance.settings["shard"] == "40 of 60 samples"
    assert missing(merge(logs)).tolist() == []


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ([], ""),
        ([4], "4"),
        ([0, 1, 2, 7, 9, 10], "0 to 2, 7, 9 to 10"),
        (list(range(0, 60, 3)), "0, 3, 6, 9, 12, 15, 18, 21, 24, 27, and 10 more stretches"),
    ],
)
def test_positions_in_words(positions, words):
    assert ranges(np.array(positions, dtype=np.int64)) == words


def test_records_that_do_not_belong_together(network, data, tmp_path):
    run(network, data, folder=made(tmp_path / "one"))
    others = {
        "networks": {"network": random_chain(1, sizes=(6, 8, 4))},
        "eps": {"eps": (0.02, 0.1)},
        "norm": {"norm": "linf"},
        "samples": {"limit": 50},
        "level": {"level": "numerical"},
    }
    for word, change in others.items():
        changed = {"network": network, "data": data, "folder": made(tmp_path / word)} | change
        run(changed.pop("network"), changed.pop("data"), **changed)
        with pytest.raises(UsageError, match=rf"do not belong together.*{word}") as caught:
            merge([*read_folder(tmp_path / "one"), *read_folder(tmp_path / word)])
        assert "\n" not in str(caught.value)


def _changed(log, row, **values):
    verdicts = log.verdicts.take(np.arange(len(log.verdicts)))
    for name, value in values.items():
        getattr(verdicts, name)[row] = value
    return replace(log, verdicts=verdicts)


def test_contradictions_are_refused(network, data, tmp_path):
    run(network, data, folder=tmp_path)
    (log,) = read_folder(tmp_path)
    row = int(np.flatnonzero(log.verdicts.status[:, 0] == Status.CERTIFIED)[0])
    with pytest.raises(UsageError, match=rf"contradict each other about sample {log.verdicts.index[row]}:"):
        merge([log, _changed(log, row, status=Status.ATTACKED)])
    keys = log.keys.copy()
    keys[row] = "0" * 16
    with pytest.raises(UsageError, match="contradict"):
        merge([log, replace(log, keys=keys)])


def test_the_verdict_that_says_more_counts(network, data, tmp_path):
    run(network, data, folder=tmp_path)
    (log,) = read_folder(tmp_path)
    row = int(np.flatnonzero(log.verdicts.status[:, 0] == Status.CERTIFIED)[0])
    less = _changed(log, row, status=Status.UNKNOWN, stage=-1, radius=0.0)
    for order in ([log, less], [less, log]):
        assert same(merge(order), merge([log]))


def test_the_weaker_bound_is_shown(network, data, tmp_path):
    logs = shards(network, data, tmp_path, 2)
    weaker = logs[0].heading.bound.model_copy(update={"bound": logs[0].heading.bound.bound * 2})
    other = replace(logs[0], heading=logs[0].heading.model_copy(update={"bound": weaker}))
    for order in ([other, logs[1]], [logs[1], other]):
        assert make_report(merge(order)).bound.bound == weaker.bound


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_cover_gives_the_whole(tmp_path_factory, data):
    """Random overlapping pieces, in random order and nesting, give what all rows give."""
    whole = _fixed(tmp_path_factory)
    count = len(whole.verdicts)
    pieces = data.draw(st.lists(st.sets(st.integers(0, count - 1)), min_size=1, max_size=5))
    left = sorted(set(range(count)) - set().union(*pieces))
    rows_of = [*(sorted(piece) for piece in pieces), left]
    logs = [
        replace(
            whole,
            verdicts=whole.verdicts.take(np.array(r, dtype=np.int64)),
            keys=whole.keys[np.array(r, dtype=np.int64)],
        )
        for r in rows_of
    ]
    order = data.draw(st.permutations(range(len(logs))))
    cut = data.draw(st.integers(1, len(logs)))
    shuffled = [logs[i] for i in order]
    assert same(merge([merge(shuffled[:cut]), *shuffled[cut:]]), merge([whole]))


_FOUND: dict[str, Log] = {}


def _fixed(factory):
    """One log for all examples."""
    if "log" not in _FOUND:
        net, folder = random_chain(0, sizes=(6, 8, 4)), factory.mktemp("fixed")
        run(net, labelled(net, 12, scale=0.5), folder=folder)
        _FOUND["log"] = read_records(folder / "records.jsonl").log
    return _FOUND["log"]


def test_records_without_a_report_are_merged_before_they_are_compared(tmp_path):
    network = random_chain(1)
    data = labelled(network, 6)
    for name in ("a", "b"):
        run(network, data, folder=made(tmp_path / name))
    with pytest.raises(UsageError, match=r"has records and no report\.json: .*lipcert report merge"):
        compare_runs([tmp_path / "a", tmp_path / "b"])
