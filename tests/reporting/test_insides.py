"""The insides of policies in the report: pictures where there is something to see, nothing where there is not, one page with all."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.environments.finite import gridworld
from policylab.environments.pointmass import PointMass
from policylab.environments.time_limit import TimeLimit
from policylab.examples import example_recording, example_spec
from policylab.learners.evolution.quality_diversity import Archive, Tried
from policylab.planners.backup import BestEnd, Kept
from policylab.planners.expansion import Earned, Listed
from policylab.planners.selection import Frontier
from policylab.policies.tabular import TabularPolicy
from policylab.reporting.insides import Moment, insides, insides_of, insightful, middle_of_an_episode

KEY = jax.random.key(0)


def titles(found):
    pictures, missing = found
    assert all(picture.content.startswith(b"\x89PNG") and len(picture.content) < 300_000 for picture in pictures)
    assert all(picture.caption for picture in pictures)
    return [picture.title for picture in pictures], missing


def test_a_search_shows_its_tree_and_a_gaussian_nothing():
    planner = lab.MonteCarloTreeSearch(gridworld(("S.G",)), simulations=8)  # the search that the drawings are tested with
    assert titles(insides(planner, Moment(jnp.zeros((), jnp.int32), None, "now"), key=KEY)) == (["The tree of one search"], ())
    plain = lab.Gaussian(width=8).build(example_spec(), key=KEY)
    nowhere = Moment(jnp.zeros(example_spec().observation.shape), None, "nowhere")
    assert titles(insides(plain, nowhere, {"policy": plain}, key=KEY)) == ([], ())


def test_a_search_in_steps_shows_its_tree():
    world = gridworld(("S.G",))
    anyhow = Listed(TabularPolicy(jnp.zeros((3, 4))), 0.0, choices=2)
    planner = lab.TreeSearch(world, anyhow, Earned(), Frontier(), Kept(), BestEnd(), rounds=2)
    shown, missing = titles(insides(planner, Moment(jnp.zeros((), jnp.int32), None, "now"), key=KEY))
    assert (shown, missing) == (["The tree of one search"], ())
    assert insightful(planner)
    assert not insightful(lab.UniformRandom(lab.Box((1,))))


def test_the_middle_of_an_episode_is_half_of_its_steps():
    line = gridworld(("S....G",))
    ahead = TabularPolicy(jnp.tile(jnp.array([0.0, 50.0, 0.0, 0.0]), (6, 1)))
    moment = middle_of_an_episode(ahead, TimeLimit(line, 9), seed=0)
    assert moment.where == "after 2 of 5 steps of an episode"
    assert int(moment.observation) == 2


def test_the_policy_that_solve_ships_shows_what_it_makes_of_noise_in_a_recorded_episode():
    recording = example_recording(example_spec())
    run = lab.train(lab.BC(policy=lab.Diffusion(width=8, depth=1, levels=3), batch_size=8), recording, steps=1)
    (picture,) = insides_of(("bc", run, 0), recording)
    assert picture.title == "From noise to an action"
    assert "of a recorded episode of" in picture.caption
    assert insides_of(None, recording) == ()


def test_archives_are_shown_and_empty_ones_are_told():
    blank = Tried(jnp.zeros((4, 1)), jnp.zeros((4, 2)), jnp.zeros(4))
    empty = Archive.of(4, blank)
    grid = {"elites": blank, "occupied": jnp.array([True, False, True, False])}
    shown, missing = titles(insides(lab.UniformRandom(lab.Box((1,))), None, {"archive": grid, "rewarded": empty}, key=KEY))
    assert shown == ["The archive"]
    assert missing == ("the rewarded holds 0 members with 2 numbers each: nothing to draw",)


def test_a_planner_gets_a_page_with_an_episode_its_plans_and_its_return(tmp_path):
    place = TimeLimit(PointMass(), 4)
    planner = lab.RandomShooting(PointMass(), horizon=3, population=5)
    page = lab.report(planner, place, tmp_path / "report.html", episodes=2).read_text()
    assert page.count("data:image/gif;base64,") == 1
    assert page.count("data:image/png;base64,") >= 1
    assert "The plans that were tried" in page
    assert "A rollout of the winner" not in page
    assert "<h2>What it earns</h2>" in page
    told = re.search(r"RandomShooting on [^:]*: return (-?[0-9]+\.[0-9]+)", page)
    assert told is not None
    assert np.isfinite(float(told[1]))
    assert len(page) < 2_000_000
