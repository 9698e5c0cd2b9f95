"""Which engine a model gets."""

from __future__ import annotations

from collections.abc import Sequence

from mixedlearn.data.sums import Sums
from mixedlearn.engines.elimination.engine import plan_several
from mixedlearn.engines.joint import plan_jointly
from mixedlearn.engines.one_factor import plan_one_factor
from mixedlearn.engines.plan import Plan
from mixedlearn.engines.stochastic import products
from mixedlearn.engines.stochastic.plan import plan_stochastic

# Up to so many random effects of several factors are one dense block: it costs little then, and an
# exact Hessian is worth more than fewer multiplications.
MOST_JOINT_EFFECTS = 400
# An exact evaluation of more multiplications, some seconds, is dear beside a sampling error that is
# a hundredth of a standard error.
MOST_MULTIPLICATIONS = 1e11


def choose(sums: Sums, n_effects: Sequence[int], solver: str) -> Plan:
    """The plan of the engine that suits a model: an exact one where it is cheap.

    It is exact whatever the solver where factors are not crossed, or where all but one chain of
    nested factors have few random effects.

    Parameters
    ----------
    sums : Sums
        Of the factors; what they have of columns is not looked at.
    n_effects : sequence of int
        Effects per level, q, of every factor.
    solver : str
        "auto", "exact" or "stochastic".
    """
    shapes = list(zip(n_effects, sums.n_levels, strict=True))
    if len(shapes) <= 1:
        return plan_one_factor(shapes)
    joint = plan_jointly(shapes)
    if joint.n_dense <= MOST_JOINT_EFFECTS and solver != "stochastic":
        return joint
    plan = plan_several(sums, n_effects)
    is_cheap = plan.multiplications <= MOST_MULTIPLICATIONS and plan.fits
    is_small = plan.n_dense <= products.MOST_SMALL_EFFECTS
    if solver == "exact" or is_small or (solver == "auto" and is_cheap):
        return plan
    return plan_stochastic(sums, plan)
