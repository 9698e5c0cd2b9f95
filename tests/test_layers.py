"""The layers of the package: what is low imports nothing that is high; few know scikit-learn."""

import ast
from pathlib import Path

import pytest

import mixedlearn

ROOT = Path(mixedlearn.__file__).parent

# From low to high. A module imports from lower layers only, or from its own package.
LAYERS = [
    "exceptions",
    "threads",
    "covariance",
    "residual",
    "specification",
    "data",
    "formula",
    "engines",
    "search",
    "model",
    "inference",
    "plot",
    "estimator",
    "lmer",
    "dask",
]
# Beside the layers: they use nothing of the package.
APART = {"datasets", "metrics"}
USES_SCIKIT_LEARN = {"estimator", "plot", "residual"} | APART


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
RANK = {unit: rank for rank, unit in enumerate(LAYERS)}


def test_every_module_has_its_place():
    assert {unit_of(path) for path in FILES} == set(RANK) | APART
    assert not set(RANK) & APART


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lower_layers_do_not_import_upper_ones(path):
    unit = unit_of(path)
    others = {other for other in units_imported(path) if other != unit}
    if unit in APART:
        assert not others
        return
    assert not {other for other in others if RANK[other] > RANK[unit]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_outer_modules_know_scikit_learn(path):
    knows = any(name.split(".")[0] == "sklearn" for name in imported(path))
    assert not knows or unit_of(path) in USES_SCIKIT_LEARN


# How sums over rows are stored is known to `data` alone; so is what they are called there.
LAYOUT = {"grouped", "crossings", "z_columns"}


def layout_read(path):
    """Fields of the sums that a file reads."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
            if node.attr in LAYOUT or (
                node.attr in {"gram", "shift", "taken", "triangles"} and "sums" in owner
            ):
                yield node.attr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_data_knows_how_sums_are_stored(path):
    assert unit_of(path) == "data" or not set(layout_read(path))


def test_the_layout_is_read():
    assert set(layout_read(ROOT / "data" / "remainders.py")) >= LAYOUT


LONGEST = 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_function_needs_scrolling(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            has_docstring = ast.get_docstring(node) is not None
            docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
            assert node.end_lineno - node.lineno + 1 - docstring <= LONGEST, node.name


def test_few_modules_at_the_top():
    assert len([path for path in ROOT.glob("*.py") if path.name != "__init__.py"]) <= 8


def test_the_imports_are_read():
    found = set(units_imported(ROOT / "model" / "fit.py"))
    assert found >= {"covariance", "data", "engines", "model", "search", "specification"}
    assert any(name.startswith("sklearn") for name in imported(ROOT / "estimator" / "regressor.py"))
