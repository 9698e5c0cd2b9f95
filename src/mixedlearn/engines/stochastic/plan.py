"""The plan of the stochastic engine, from that of the engine that eliminates."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from mixedlearn.data.sums import Sums
from mixedlearn.engines.elimination.chain import EliminationPlan
from mixedlearn.engines.plan import Plan


def eliminate_one(order: EliminationPlan) -> EliminationPlan:
    """The order in which the first factor alone is eliminated.

    Iteration copes with nested factors, and random signs say more where one is eliminated: what
    they add is known for every level then.
    """
    first = order.chain[0]
    others = [k for k in range(len(order.shapes)) if k != first]
    tail = sorted(others, key=lambda k: -order.shapes[k][1])
    return replace(order, chain=(first,), tail=tuple(tail), ancestors=((),))


def plan_stochastic(sums: Sums, plan: Plan) -> Plan:
    """The plan that solves by iteration for what another has in its dense block, and more."""
    assert plan.elimination is not None
    order = eliminate_one(plan.elimination)
    (first,) = order.chain
    n_pairs = {
        (k, other): len(sums.pairs(k, other)[0]) * order.shapes[k][0] * order.shapes[other][0]
        for k, other in combinations(range(len(order.shapes)), 2)
    }
    beside = sum(count for pair, count in n_pairs.items() if first in pair)
    by_factor = {block.factor: block for block in plan.blocks}
    blocks = [replace(by_factor[first], nested_in=None, n_beside=beside)]
    blocks += [
        replace(by_factor[k], is_dense=False, is_iterated=True, nested_in=None, n_beside=0)
        for k in order.tail
    ]
    return Plan("stochastic", tuple(blocks), False, order, sum(n_pairs.values()))
