"""The cascade: what is run, in which order, on what; time, memory and the make-up of batches decide no verdict."""

from __future__ import annotations

import itertools
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_networks import chain, convolutions, labelled, random_chain

from lipcert.bounds.local.certify import SampleCertifier
from lipcert.bounds.local.method import Bounds, Crown, LocalMethod
from lipcert.bounds.local.registry import find_local
from lipcert.bounds.local.view import View
from lipcert.errors import UsageError
from lipcert.network.evaluate import evaluate
from lipcert.network.operators import Elementwise
from lipcert.proof.claims import Level
from lipcert.proof.local import Samples
from lipcert.robustness.attack import Attack, Attacker, distances
from lipcert.robustness.certifier import certify, explain
from lipcert.robustness.records.merge import merge, read_folder
from lipcert.robustness.settings import Settings
from lipcert.robustness.stages.batches import Batches, ran_out
from lipcert.robustness.stages.cascade import Cascade
from lipcert.robustness.stages.clock import Clock, Pace
from lipcert.robustness.stages.local import radii, search
from lipcert.robustness.stages.plan import make_plan
from lipcert.robustness.stages.prover import Balls, Ground, Prover
from lipcert.robustness.stages.stage import Stage
from lipcert.robustness.summary import make_report
from lipcert.robustness.verdicts import Verdicts

EPS = (0.02, 0.1, 0.3)
QUICK = {"lower_seconds": 0.0, "attack": Attack(steps=8, restarts=2), "quantity": "features"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case():
    network = random_chain(3, (6, 12, 12, 4))
    images, labels = labelled(network, 40)
    labels[::8] = (labels[::8] + 1) % 4
    return network, (images, labels)


def _run(case, **settings):
    return certify(*case, **({"eps": EPS} | QUICK | settings))


# --- what is run ------------------------------------------------------------------------------------------------


def _planned(network, **settings):
    plan = make_plan(network, Settings(eps=(0.1,), **settings), "cpu")
    return {step.name: step for step in plan.steps}


def test_only_what_can_count_at_the_level_is_run():
    network = random_chain(0)
    verified, numerical = _planned(network), _planned(network, level="numerical")
    executed = _planned(network, level="verified-exec")
    for found in (verified, numerical, executed):
        assert not found.pop("zonotope").included
    for name, step in verified.items():
        if step.kind == "local":
            assert step.included == find_local(name).derived
    assert all(step.included for step in numerical.values())
    assert all("of level numerical" in step.reason for step in verified.values() if not step.included)
    assert [step.included for step in executed.values()] == [step.included for step in verified.values()]
    assert executed["crown"].level is Level.VERIFIED_EXEC


def test_the_order_is_from_cheap_to_expensive():
    names = list(_planned(random_chain(0), level="numerical"))
    wanted = ["global", "attack", "intervals", "zonotope", "crown", "pruned", "attack again"]
    wanted += ["attack beyond the data", "anchored", "alpha-crown"]
    assert names == [*wanted, "branching"]
    assert list(_planned(random_chain(0), method="crown")) == ["global", "crown"]
    assert list(_planned(random_chain(0), method="product")) == ["global"]


def test_zonotopes_come_before_linear_bounds_where_they_are_much_cheaper():
    dense, deep = _planned(random_chain(0))["zonotope"], _planned(convolutions(6))["zonotope"]
    assert not dense.included and "'crown' costs little more" in dense.reason
    assert deep.included and deep.level is Level.VERIFIED
    assert _planned(random_chain(0), method="zonotope")["zonotope"].included


def test_zonotopes_decide_samples_of_a_deep_network():
    network = convolutions(5)
    data = labelled(network, 6)
    report = certify(network, data, eps=(0.002,), method="zonotope", **QUICK)
    by = {stage.method: stage.decided for stage in report.per_method}
    assert by["zonotope"] > 0 and report.level == "verified"
    alone = [
        certify(network, (data[0][k : k + 1], data[1][k : k + 1]), eps=(0.002,), method="zonotope", **QUICK)
        for k in range(6)
    ]
    assert sum(one.certified_count["0.002"] for one in alone) == report.certified_count["0.002"]


def test_stages_that_do_not_apply_are_left_out_with_the_reason():
    periodic = _planned(random_chain(0, activation="sin"))
    assert not any(step.included for step in periodic.values() if step.kind == "local")
    assert "sin" in periodic["crown"].reason
    assert "l2, not linf" in _planned(random_chain(0), norm="linf", level="numerical")["anchored"].reason
    with pytest.raises(UsageError, match="cannot be used here"):
        _planned(random_chain(0), norm="linf", method="anchored")
    network = random_chain(0, activation="sin")
    assert certify(network, labelled(network, 10), eps=(0.1,), **QUICK).samples == 10


def test_the_explanation_says_what_a_run_does(case):
    told = explain(*case, eps=EPS, **QUICK)
    done = _run(case)
    assert [stage.name for stage in told.stages if stage.included] == [stage.method for stage in done.per_method]
    assert told.samples == 40 and told.eps == EPS and told.bound_method == done.bound.method
    assert all(stage.batch_size is None and stage.level is None for stage in told.stages if not stage.included)
    counted = {stage.name: stage.multiplications for stage in told.stages}
    assert counted["intervals"] < counted["crown"] < counted["alpha-crown"]


# --- what the cascade certifies ---------------------------------------------------------------------------------


def test_the_cascade_certifies_what_any_of_its_methods_does(case):
    whole = _run(case).certified_count
    for name in ("global", "intervals", "crown", "alpha-crown"):
        alone = _run(case, method=name).certified_count
        assert all(whole[key] >= count for key, count in alone.items())
    assert sum(whole.values()) > sum(_run(case, method="global").certified_count.values())


@pytest.mark.parametrize("level", ["verified", "numerical"])
def test_nothing_certified_falls_to_a_strong_attack(case, level, tmp_path):
    network, (images, labels) = case
    _run(case, level=level, folder=tmp_path)
    attacker = Attacker(network, Attack(steps=60, restarts=4), "l2", (-1e3, 1e3))
    for column, eps in enumerate(EPS):
        rows = [row["index"] for row in _rows(tmp_path) if row["status"][column] == "certified"]
        assert rows and not attacker.run(images[rows], labels[rows], eps)[0].any()


def _rows(folder):
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [line for line in lines if "status" in line]


def test_statuses_follow_the_radii(case, tmp_path):
    """Certified at some eps, then unknown, then attacked."""
    order = {"certified": 0, "unknown": 1, "attacked": 2}
    _run(case, folder=tmp_path, eps=(0.02, 0.05, 0.1, 0.2, 0.4, 0.8))
    found = [row["status"] for row in _rows(tmp_path) if "misclassified" not in row["status"]]
    assert len({status for row in found for status in row}) == 3
    for row in found:
        assert [order[status] for status in row] == sorted(order[status] for status in row)


@pytest.mark.parametrize("level", ["verified", "numerical"])
def test_batches_decide_nothing(case, level, tmp_path):
    found = []
    for size in (1, 7, 40):
        folder = tmp_path / str(size)
        folder.mkdir()
        _run(case, level=level, batch_size=size, folder=folder)
        rows = sorted(_rows(folder), key=lambda row: row["index"])
        found.append([(row["status"], row["stage"], row["level"]) for row in rows])
    assert found[0] == found[1] == found[2]


# --- several radii ----------------------------------------------------------------------------------------------


def test_bisection_finds_the_last_column_that_is_proved():
    limits = np.arange(9) % 8
    tried = []

    def proves(rows, columns):
        tried.append(len(rows))
        return columns < limits[rows]

    low, high = np.zeros(9, dtype=np.int64), np.full(9, 7)
    np.testing.assert_array_equal(search(low, high, proves), np.minimum(limits, 7))
    assert len(tried) == 3
    np.testing.assert_array_equal(search(high, high, proves), high)


def test_what_is_proved_at_a_radius_is_not_tried_at_smaller_ones(case, monkeypatch):
    network = case[0]
    images, labels = labelled(network, 40)
    asked = []
    original = Prover.levels

    def watched(self, balls):
        asked.extend(balls.eps.tolist())
        return original(self, balls)

    monkeypatch.setattr(Prover, "levels", watched)
    eps = (1e-7, 2e-7, 3e-7)
    found = certify(network, (images, labels), eps=eps, method="crown", quantity="output")
    assert found.certified_count["3e-07"] == found.clean_count and not asked  # the global bound has them all
    monkeypatch.setattr("lipcert.robustness.stages.stage.GlobalStage.decide", _predict_only)
    found = certify(network, (images, labels), eps=eps, method="crown", quantity="output")
    assert found.certified_count == dict.fromkeys(found.certified_count, 40)
    assert sorted(set(asked)) == [2e-7, 3e-7] and len(asked) == 80


def _predict_only(self, images, verdicts, own):
    verdicts.predicted[:] = verdicts.labels


# --- radii ------------------------------------------------------------------------------------------------------


def test_radii_are_searched_and_hold(case, tmp_path):
    network, (images, labels) = case
    plain, searched = _run(case, method="crown"), _run(case, method="crown", radius=True, folder=tmp_path)
    assert searched.mean_certified_radius > plain.mean_certified_radius
    assert searched.certified_count == plain.certified_count
    attacker = Attacker(network, Attack(steps=40, restarts=2), "l2", (-1e3, 1e3))
    certifier, grid = SampleCertifier(network), radii(EPS)

    def holds(one, radius):
        return certifier.prove(find_local("crown"), Samples.of(images[one], labels[one]), radius).rows.all()

    for row in _rows(tmp_path):
        if row["radius"] == 0:
            continue
        one = slice(row["index"], row["index"] + 1)
        assert not attacker.run(images[one], labels[one], row["radius"], attempts=range(1))[0].any()
        above = grid[grid > row["radius"]]
        if row["radius"] in grid and len(above):
            assert holds(one, row["radius"]) and not holds(one, float(above[0]))
    curve = dict(searched.curve)
    assert all(curve[eps] == searched.certified_accuracy[f"{eps:g}"] for eps in EPS)


def test_radii_need_a_local_method(case):
    with pytest.raises(UsageError, match="local methods"):
        _run(case, method="global", radius=True)


# --- time -------------------------------------------------------------------------------------------------------


def test_what_the_time_limit_leaves_is_unknown(case, tmp_path):
    full = _run(case, folder=None)
    cut = _run(case, time_limit=0.0, folder=tmp_path)
    assert cut.clean_count == full.clean_count and cut.attacked_count == {"0.02": 0, "0.1": 0, "0.3": 0}
    assert cut.certified_count == _run(case, method="global", time_limit=0.0).certified_count
    assert any("time limit was over before everything was tried" in note for note in cut.notes)
    assert cut.untried_count == cut.unknown_count and not full.untried_count
    rows = _rows(tmp_path)
    waiting = {row["index"]: row["pending"] for row in rows if row["pending"]}
    assert len(rows) == 40 and len(waiting) == cut.unknown_count["0.3"]  # open at some eps, so at the largest
    assert all("crown" in stages and "global" not in stages for stages in waiting.values())
    shown = make_report(merge(read_folder(tmp_path)))
    assert (shown.untried_count, shown.certified_count) == (cut.untried_count, cut.certified_count)
    assert any("time limit was over" in note for note in shown.notes)


def test_what_a_sample_may_cost_is_kept_to(case):
    found = _run(case, budget_per_sample=0.0)
    assert found.certified_count == _run(case, method="global").certified_count
    assert any("more than 0 s each" in note for note in found.notes)
    assert not any("more than" in note for note in _run(case, budget_per_sample=1e6).notes)


class _Slow(Stage):
    """Takes so many seconds per sample of a fake clock."""

    name = "slow"

    def __init__(self, now, each=1.0):
        self.now, self.each, self.seen = now, each, []

    def decide(self, images, verdicts, own):
        self.seen.append(len(verdicts))
        self.now[0] += self.each * len(verdicts)


def test_a_stage_known_to_be_too_slow_is_spared(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    stages = [_Slow(now) for _ in range(3)]
    cascade = Cascade(stages, (0.1,), Clock(per_sample=1.5))
    for _ in range(3):
        verdicts = Verdicts.unknown(np.arange(4), np.zeros(4, dtype=np.int64), 1)
        verdicts.predicted[:] = 0
        assert not cascade.decide(np.zeros((4, 1), np.float32), verdicts).any()
    # the first stage always runs; of the two others only what is known to fit beside what was spent
    assert stages[0].seen == [4, 4, 4] and stages[2].seen == [4]
    assert "8 samples" not in " ".join(cascade.remarks()) and "1.5 s each" in " ".join(cascade.remarks())


def _cascade(now, costs, limit):
    """Return stages that take these seconds per sample of a fake clock, behind one that takes none."""
    stages = [_Slow(now, each) for each in (0.0, *costs)]
    return Cascade(stages, (0.1,), Clock(limit))


@pytest.fixture
def now(monkeypatch):
    now = [0.0]
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(f"time.{name}", lambda: now[0])
    return now


def _open(count):
    verdicts = Verdicts.unknown(np.arange(count), np.zeros(count, dtype=np.int64), 1)
    verdicts.predicted[:] = 0
    return verdicts


def test_a_stage_beyond_the_share_of_a_sample_is_put_off(now):
    cascade, images = _cascade(now, (1.0, 5.0), 1000.0), np.zeros((4, 1), np.float32)
    assert not cascade.decide(images, _open(4)).any()  # nothing is known of the stages: they are run
    pending = cascade.decide(images, _open(4), share=3.0)
    np.testing.assert_array_equal(pending, [[False, False, True]] * 4)
    assert [stage.seen for stage in cascade.stages] == [[4, 4], [4, 4], [4]]
    assert not cascade.decide(images, _open(4), pending=pending).any()  # only what was put off
    assert [stage.seen for stage in cascade.stages] == [[4, 4], [4, 4], [4, 4]]


def test_a_stage_that_cannot_end_in_time_is_not_begun(now):
    cascade, images = _cascade(now, (1.0, 5.0), 60.0), np.zeros((1, 1), np.float32)
    cascade.stages[1].work, cascade.stages[2].work = 1e6, 4e7  # forty times as much: forty seconds
    now[0] = 25.0
    pending = cascade.decide(images, _open(1))
    np.testing.assert_array_equal(pending, [[False, False, True]])
    assert now[0] == 26.0 and not cascade.stages[2].seen
    cascade.stages[2].work = 1e9  # a thousand times: the first stage says nothing of it
    assert not cascade.decide(images, _open(1), pending=pending).any()


def test_batches_end_before_the_time_is_over(now):
    """Two seconds per sample, of sixty: never more than one sample after the end."""
    batches, done = Batches(CPU, 1000, Clock(60.0)), []

    def work(part):
        done.append(part.stop - part.start)
        now[0] += 2.0 * done[-1]
        return np.ones(done[-1])

    found = batches.run(1000, work, np.array(0.0))
    assert len(found) == 1000 and found.sum() == sum(done) == 30
    assert done[0] == 1 and 60.0 <= now[0] < 62.0


def test_what_is_cheap_is_tried_on_all_samples_before_time_is_spent_on_few(case, tmp_path, monkeypatch):
    """Each sample of a slow stage takes a fifth of the time limit; attacks reach all samples all the same."""
    limit, whole = 4.0, _run(case)
    original = LocalMethod.bound

    def slow(self, view, ball, labels):
        time.sleep(limit / 5 * len(labels))
        return original(self, view, ball, labels)

    monkeypatch.setattr(LocalMethod, "bound", slow)
    cut = _run(case, folder=tmp_path, time_limit=limit)
    assert cut.untried_count["0.3"] > 0 and cut.attacked_count["0.3"] > 0.5 * whole.attacked_count["0.3"]
    assert cut.seconds < 2.0 * limit
    monkeypatch.undo()
    again = _run(case, folder=tmp_path, resume=True)
    assert not again.untried_count and again.certified_count == whole.certified_count
    assert again.attacked_count == whole.attacked_count
    second = max(read_folder(tmp_path)[0].parts.values(), key=lambda part: part.started)
    assert second.seconds["global"] == second.seconds["attack"] == 0.0  # nobody is looked at twice
    assert sorted(row["index"] for row in _rows(tmp_path)) == list(range(40))


def test_with_a_time_limit_every_cheap_stage_ends_a_round():
    def stage(cheap):
        return SimpleNamespace(name="", cheap=cheap)

    stages = [stage(cheap) for cheap in (False, True, False, True, False)]
    rounds = Cascade(stages, (0.1,), Clock(limit=10.0)).rounds()
    assert [int(turn.stages.sum()) for turn in rounds] == [1, 2, 4, 5, 5]
    assert all(turn.stages[: turn.stages.sum()].all() for turn in rounds)
    assert [turn.shared for turn in rounds] == [False, False, False, True, False]
    assert [int(turn.stages.sum()) for turn in Cascade(stages, (0.1,)).rounds()] == [5]


def test_batches_keep_their_pace():
    pace = Pace(8, 100, seconds=9.0)
    pace.learn(8, 1.0)
    assert pace.size == 16
    pace.learn(3, 0.1)  # the rest of the data says nothing
    assert pace.size == 16
    pace.learn(16, 90.0)
    assert pace.size == 1
    for _ in itertools.repeat(None, 20):
        pace.learn(pace.size, 0.0)
    assert pace.size == 100


# --- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you ...")])
def test_batches_shrink_where_memory_is_short(error):
    batches = Batches(CPU, 64)
    batches.size = 64
    sizes = []

    def work(part):
        sizes.append(part.stop - part.start)
        if sizes[-1] > 5:
            raise error
        return np.arange(part.start, part.stop)

    np.testing.assert_array_equal(batches.run(40, work, np.array(-1)), np.arange(40))
    assert max(sizes[4:]) <= 5 and batches.failed == 0


def test_a_sample_that_does_not_fit_alone_is_given_up():
    batches = Batches(CPU, 8)

    def work(part):
        if part.start <= 3 < part.stop:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return np.arange(part.start, part.stop)

    np.testing.assert_array_equal(batches.run(6, work, np.array(-1)), [0, 1, 2, -1, 4, 5])
    assert batches.failed == 1


def test_other_errors_are_no_lack_of_memory():
    def work(part):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(CPU, 8).run(6, work, np.array(0))
    assert not ran_out(ValueError("can't allocate memory"))


def test_batches_grow_while_memory_allows(monkeypatch):
    sizes = []

    def work(part):
        sizes.append(part.stop - part.start)
        return np.zeros(sizes[-1])

    monkeypatch.setattr("lipcert.robustness.stages.batches._gauge", lambda device: lambda: 100 * sizes[-1])
    monkeypatch.setattr("lipcert.robustness.stages.batches._room", lambda device: 3000.0)
    Batches(CPU, 1000).run(100, work, np.array(0.0))
    assert sizes[0] == 1 and max(sizes) == 30


def test_out_of_memory_changes_no_verdict(case, monkeypatch):
    whole = _run(case, method="crown")
    original = Crown._bound

    def narrow(self, view, ball, labels):
        if len(labels) > 2:
            raise MemoryError
        return original(self, view, ball, labels)

    monkeypatch.setattr(Crown, "_bound", narrow)
    assert _run(case, method="crown").certified_count == whole.certified_count

    def never(self, view, ball, labels):
        raise MemoryError

    monkeypatch.setattr(Crown, "_bound", never)
    starved = _run(case, method="crown")
    assert starved.certified_count == _run(case, method="product").certified_count
    assert any("too little memory" in note for note in starved.notes)


# --- borders ----------------------------------------------------------------------------------------------------


def test_what_is_close_to_zero_is_done_alone(case, monkeypatch):
    """A method whose bounds depend on the batch near zero gives the verdict of each sample alone."""
    network, (images, labels) = case

    def shaky(self, view, ball, labels):
        sign = 1.0 if len(labels) == 1 else -1.0
        found = torch.full((len(labels), view.classes - 1), 5.0)
        found[:, 0] = 1e-4 * sign
        return Bounds(found)

    monkeypatch.setattr(Crown, "_bound", shaky)
    prover = Prover(find_local("crown"), Ground(View(network), "l2"))
    levels = prover.levels(Balls(images, labels, np.full(40, 0.1)))
    assert (levels == Level.NUMERICAL).all()


def test_hopeless_samples_are_spared_and_nothing_is_lost(monkeypatch):
    network = random_chain(3, (6, 30, 30, 4))
    images, labels = labelled(network, 60)
    ground = Ground(View(network), "l2")
    for eps in (0.1, 0.3, 1.0):
        balls = Balls(images, labels, np.full(60, eps))
        whole = Prover(find_local("anchored"), ground)
        sieved = Prover(find_local("anchored"), ground, find_local("crown"))
        np.testing.assert_array_equal(sieved.levels(balls), whole.levels(balls))
        assert whole.hopeless == 0
    assert 0 < sieved.hopeless <= 60


def test_the_sieve_keeps_what_is_proved_and_drops_what_is_far(monkeypatch):
    """Margins m at the sample and c on the ball: hope is m / (m - c)."""
    network = chain((np.array([[1.0], [-1.0]]), np.zeros(2)))
    images, labels = np.ones((3, 1), np.float32), np.zeros(3, dtype=np.int64)  # m = 2
    bounds = {0.1: 1.0, 0.2: -2.0, 0.3: -38.0}  # shares: proved, 1/2, 1/20

    def bound(self, view, ball, labels):
        return Bounds(torch.tensor([[bounds[round(radius, 3)]] for radius in ball.eps.tolist()]))

    monkeypatch.setattr(Crown, "_bound", bound)
    prover = Prover(find_local("intervals"), Ground(View(network), "l2"), find_local("crown"))
    prover.levels(Balls(images, labels, np.array(list(bounds))))
    assert prover.hopeless == 1


def test_attacks_do_not_depend_on_the_batch():
    network = random_chain(0)
    images, labels = labelled(network, 30)
    attacker = Attacker(network, Attack(steps=10, restarts=3), "l2", (-5.0, 5.0))
    whole, points = attacker.run(images, labels, 0.4)
    order = np.random.default_rng(0).permutation(30)
    mixed, others = attacker.run(images[order], labels[order], 0.4, index=order)
    np.testing.assert_array_equal(mixed, whole[order])
    np.testing.assert_allclose(others, points[order], atol=1e-4)
    for row in range(30):
        alone, _ = attacker.run(images[row : row + 1], labels[row : row + 1], 0.4, index=np.array([row]))
        assert alone[0] == whole[row]
    assert 0 < whole.sum() < 30


def test_tries_can_be_made_apart():
    network = random_chain(0)
    images, labels = labelled(network, 30)
    attacker = Attacker(network, Attack(steps=10, restarts=3), "l2", (-5.0, 5.0))
    whole, _ = attacker.run(images, labels, 0.4)
    first, _ = attacker.run(images, labels, 0.4, attempts=range(1))
    later, _ = attacker.run(images, labels, 0.4, attempts=range(1, 3))
    np.testing.assert_array_equal(whole, first | later)
    assert not attacker.run(images, labels, 0.4, attempts=range(1, 1))[0].any()


def test_adversarial_inputs_are_saved_and_are_adversarial(case, tmp_path):
    network, (images, _) = case
    report = _run(case, folder=tmp_path, save_adversarial=True)
    saved = np.load(tmp_path / "adversarial.npz")
    assert len(saved["index"]) == report.attacked_count["0.3"] > 0
    shift = np.abs(saved["images"].astype(np.longdouble) - images[saved["index"]])
    assert (np.sqrt((shift**2).sum(axis=1)) <= saved["distance"]).all() and (saved["distance"] <= saved["eps"]).all()
    assert (saved["distance"] >= distances(shift.astype(float), "l2") * (1 - 1e-12)).all()
    logits = evaluate(network, saved["images"].astype(float))
    rows = np.arange(len(logits))
    own = logits[rows, saved["labels"]].copy()
    logits[rows, saved["labels"]] = -np.inf
    assert (logits.max(axis=1) >= own - 1e-5).all()
    for wrong in ({"folder": None}, {"method": "global"}):
        with pytest.raises(UsageError, match="adversarial"):
            _run(case, **({"folder": tmp_path} | wrong), save_adversarial=True)


def test_a_trailing_activation_is_served():
    network = chain((np.eye(4, 6), np.zeros(4)), tail=[Elementwise("relu")])
    assert certify(network, labelled(network, 10), eps=(0.1,), **QUICK).samples == 10
