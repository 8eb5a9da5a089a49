"""Several threads on one image: every unit is done once, in time for those that read it, whoever comes late."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.engine import networks
from xnornet.engine import PackedConv2d, interpreter, sharing
from xnornet.engine.interpreter import address, run
from xnornet.engine.program import Program
from xnornet.engine.sharing import LINE, Team
from xnornet.engine.steps import PACK_WORK

SIDE = 40


@pytest.fixture(scope="module", params=["residual", "scaled", "many channels"])
def network(request):
    return networks.build(networks.NETWORKS[request.param], 3, (SIDE, SIDE, 2))


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (1, SIDE, SIDE, 2), dtype=np.uint8)


def test_an_image_has_the_same_bits_with_any_number_of_threads(network):
    for seed in range(100):
        alone = network(image(seed))
        for threads in (2, 3, 4, 50):
            assert np.array_equal(network(image(seed), threads=threads), alone)


def test_helpers_that_have_fallen_asleep_are_woken(network):
    alone = network(image())
    for _ in range(5):
        time.sleep(0.05)
        assert np.array_equal(network(image(), threads=3), alone)


def test_every_unit_is_claimed_and_finished_once(network):
    program, x, y = network._program, image(), np.empty((1, network.classes), np.float32)
    arena = program._arena()
    team = Team(3, run)
    units = [step["units"] for step in program.steps]
    assert max(units) > 4
    for _ in range(50):
        team(arena.address, len(program.steps), address(x), address(y), arena.progress)
        claimed, finished = arena.progress.view(np.int64)[:, [0, LINE // 8]].T
        assert np.array_equal(finished, units)
        # Each thread that came claims, after the last unit, one that is not there.
        assert ((claimed > units) & (claimed <= np.add(units, 4))).all()


def test_helpers_take_part():
    """In some of many runs, which take long enough: elsewhere the cores may be busy."""
    weight = np.random.default_rng(0).standard_normal((256, 256, 3, 3)).astype(np.float32)
    layer = PackedConv2d(weight, padding=1)
    packed = layer.pack(np.ones((1, 28, 28, 256), np.float32))
    y = layer.run_packed(packed)
    (program,) = [made for (kind, _), made in layer._programs._made.items() if kind == "packed"]
    arena, team = program._arena(), Team(1, run)
    helped = 0
    for _ in range(1000):
        team(arena.address, len(program.steps), address(packed.words), address(y), arena.progress)
        helped += int(arena.progress.view(np.int64)[-1, 0]) == program.steps[-1]["units"] + 2  # two have looked
        if helped:
            return
    pytest.fail("no helper has come in 1000 runs")


def test_a_nan_is_reported_whoever_packs_it():
    weight, x = np.ones((64, 3, 3, 3), np.float32), np.ones((1, 64, 64, 3), np.float32)
    layer = PackedConv2d(weight)
    assert layer(x, threads=4).min() == 27
    for row in range(64):
        spoiled = x.copy()
        spoiled[0, row, 5, 1] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            layer(spoiled, threads=4)
        assert layer(x, threads=4).min() == 27  # nothing is left of it


def test_callers_from_several_threads_do_not_disturb_each_other(network):
    """One has the helpers, the others run alone."""
    wanted = [network(image(seed)) for seed in range(4)]

    def right(seed):
        return all(np.array_equal(network(image(seed), threads=3), wanted[seed]) for _ in range(200))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(right, range(4)))


def test_callers_that_ask_at_a_time_get_one_team(monkeypatch):
    """A second one's helpers would never end."""
    made = []

    class Slow:
        def __init__(self, helpers, run):
            made.append(helpers)
            time.sleep(0.05)

    monkeypatch.setattr(sharing, "Team", Slow)
    monkeypatch.setattr(interpreter, "_teams", {})
    with ThreadPoolExecutor(4) as callers:
        teams = set(callers.map(interpreter.team, [2] * 4))
    assert (made, len(teams)) == ([2], 1)


def test_a_team_makes_do_with_the_threads_that_start(monkeypatch):
    started = []

    class Limited(sharing.Thread):
        def start(self):
            if started:
                raise RuntimeError("can't start new thread")
            started.append(self.name)

    monkeypatch.setattr(sharing, "Thread", Limited)
    assert Team(3, run)._busy.acquire(blocking=False)
    assert started == ["xnornet-helper-0"]


def test_little_work_is_not_shared(network, monkeypatch):
    monkeypatch.setattr("xnornet.engine.program.LEAST_WORK", network._program.work + 1)
    monkeypatch.setattr(Team, "__call__", None)  # would fail
    network(image(), threads=2)
    monkeypatch.setattr("xnornet.engine.program.LEAST_WORK", network._program.work)
    with pytest.raises(TypeError):
        network(image(), threads=2)


def test_a_small_batch_is_not_shared(network, monkeypatch):
    monkeypatch.setattr("xnornet.engine.program.LEAST_BATCH_WORK", 3 * network._program.work)
    monkeypatch.setattr(Program, "_share_images", None)  # would fail
    two, three = (np.concatenate([image(seed) for seed in range(count)]) for count in (2, 3))
    network(two, threads=2)
    with pytest.raises(TypeError):
        network(three, threads=2)


def test_work_is_counted_in_products():
    layer = PackedConv2d(np.ones((16, 8, 3, 3), np.float32))
    packed = layer.pack(np.ones((1, 10, 12, 8), np.float32))
    assert isinstance(program := layer._make_packed(packed), Program)
    assert program.work == 8 * 10 * 16 * 8 * 9
    assert layer._make_pack((10, 12, 8)).work == PACK_WORK * 10 * 12 * 8
