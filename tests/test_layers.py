"""The layers of the package: what is low imports nothing that is high; few know scikit-learn."""

import ast
from pathlib import Path

import pytest

import mixedlearn

ROOT = Path(mixedlearn.__file__).parent

# From low to high. A module imports from lower layers only, or from its own package.
LAYERS = [
    {"exceptions", "covariance"},
    {"components"},
    {"cross_products"},
    {"bases"},
    {"design", "grouping"},
    {"formula"},
    {"engines"},
    {"optimize"},
    {"optimize_batch"},
    {"description", "confounding"},
    {"problem"},
    {"fitted"},
    {"fit", "prediction", "submodels", "updating"},
    {"simulation", "responses"},
    {"refitting"},
    {"validation"},
    {"inference"},
    {"_fitted_state"},
    {"_report_methods", "_sampling_methods"},
    {"estimator", "metrics"},
    {"lmer"},
]
# Beside the layers: used by what a user calls, or using nothing.
APART = {"_callbacks", "datasets", "plot"}
ALLOWED_APART = {"estimator": APART, "inference": {"_callbacks"}}
USES_SCIKIT_LEARN = {
    "estimator",
    "_fitted_state",
    "_report_methods",
    "validation",
    "metrics",
} | APART


def unit_of(path):
    """The module, or the subpackage, that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """Dotted names of all modules that a file imports, anywhere in it."""
    package = ("mixedlearn", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "mixedlearn":  # from mixedlearn import covariance
                yield from (f"mixedlearn.{alias.name}" for alias in node.names)
            else:
                yield module


def units_imported(path):
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "mixedlearn" and len(parts) > 1:
            yield parts[1]


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}


def test_every_module_has_its_place():
    units = {unit_of(path) for path in FILES}
    assert units <= set(RANK) | APART
    assert set(RANK) <= units  # no layer is empty: the list above is not out of date
    assert not set(RANK) & APART


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lower_layers_do_not_import_upper_ones(path):
    unit = unit_of(path)
    others = {other for other in units_imported(path) if other != unit}
    if unit not in RANK:
        assert not others & set(RANK) or unit == "plot"
        return
    assert not {other for other in others & set(RANK) if RANK[other] > RANK[unit]}
    assert others & APART <= ALLOWED_APART.get(unit, set())
    assert others <= set(RANK) | APART


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_outer_modules_know_scikit_learn(path):
    knows = any(name.split(".")[0] == "sklearn" for name in imported(path))
    assert not knows or unit_of(path) in USES_SCIKIT_LEARN


def test_the_imports_are_read():
    assert set(units_imported(ROOT / "fit.py")) >= {
        "bases",
        "engines",
        "optimize",
        "fitted",
        "problem",
    }
    assert any(name.startswith("sklearn") for name in imported(ROOT / "estimator.py"))
