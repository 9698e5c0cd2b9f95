"""Which engine a model gets."""

from __future__ import annotations

from collections.abc import Sequence

from mixedlearn.data.sums import Sums
from mixedlearn.engines.elimination.engine import plan_several
from mixedlearn.engines.joint import plan_jointly
from mixedlearn.engines.one_factor import plan_one_factor
from mixedlearn.engines.plan import Plan

# Up to so many random effects of several factors are one dense block: it costs little then, and an
# exact Hessian is worth more than fewer multiplications.
MOST_JOINT_EFFECTS = 400


def choose(sums: Sums, n_effects: Sequence[int]) -> Plan:
    """The plan of the engine that suits a model: an exact one where it is cheap.

    Parameters
    ----------
    sums : Sums
        Of the factors; what they have of columns is not looked at.
    n_effects : sequence of int
        Effects per level, q, of every factor.
    """
    shapes = list(zip(n_effects, sums.n_levels, strict=True))
    if len(shapes) <= 1:
        return plan_one_factor(shapes)
    plan = plan_jointly(shapes)
    return plan if plan.n_dense <= MOST_JOINT_EFFECTS else plan_several(sums, n_effects)
