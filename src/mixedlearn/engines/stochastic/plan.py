"""The plan of the stochastic engine, from that of the engine that eliminates."""

from __future__ import annotations

from dataclasses import replace

from mixedlearn.engines.plan import Plan


def plan_stochastic(plan: Plan) -> Plan:
    """The plan that solves by iteration what another has in its dense block."""
    blocks = tuple(
        replace(block, is_dense=False, is_iterated=True) if block.is_dense else block
        for block in plan.blocks
    )
    n_pairs = sum(block.n_beside for block in blocks)
    return replace(plan, engine="stochastic", blocks=blocks, is_exact=False, n_pairs=n_pairs)
