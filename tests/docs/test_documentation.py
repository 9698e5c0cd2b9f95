"""Every public name is documented, times are told alike, and the check of the site finds faults."""

import dataclasses
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate
from sklearn.base import BaseEstimator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MODULES = (
    "mixedlearn",
    "mixedlearn.dask",
    "mixedlearn.datasets",
    "mixedlearn.exceptions",
    "mixedlearn.inference",
    "mixedlearn.metrics",
    "mixedlearn.plot",
    "mixedlearn.residual",
)
# What numpydoc is to find: unknown sections, or in another order; no docstring, no summary;
# parameters not documented, unknown, in another order, without type, without description; return
# values without a section, without a description.
CHECKS = {
    *("GL06", "GL07", "GL08", "SS01"),
    *("PR01", "PR02", "PR03", "PR04", "PR07"),
    *("RT01", "RT03"),
}


def public_objects():
    """Names and objects that the modules say are public."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            if not name.startswith("__"):
                yield f"{module_name}.{name}", getattr(module, name)


def public_methods():
    """Names and functions of the public methods that mixedlearn itself defines."""
    for class_name, cls in public_objects():
        if not inspect.isclass(cls):
            continue
        for name, method in inspect.getmembers(cls, callable):
            module_name = getattr(method, "__module__", None) or ""
            if not name.startswith("_") and module_name.startswith("mixedlearn"):
                yield f"{class_name}.{name}", method


def by_name(objects):
    return [pytest.param(value, id=name) for name, value in objects]


def problems_of(documented, without=()):
    """What numpydoc finds wrong with a docstring."""
    errors = validate(get_doc_object(documented))["errors"]
    return [text for code, text in errors if code in CHECKS and code not in without]


def test_api_reference_has_every_public_name_and_no_other():
    listed, module = set(), None
    for line in (DOCS / "api" / "index.rst").read_text().splitlines():
        if "module:: " in line:
            module = line.split("module:: ")[1]
        elif line.startswith("   ") and not line.strip().startswith(":"):
            listed.add(f"{module}.{line.strip()}")
    assert listed == {name for name, _ in public_objects()}


@pytest.mark.parametrize("documented", by_name(public_objects()))
def test_public_objects_are_documented(documented):
    if dataclasses.is_dataclass(documented):
        attributes = [name for name, _, _ in get_doc_object(documented)["Attributes"]]
        assert attributes[: len(dataclasses.fields(documented))] == [
            field.name for field in dataclasses.fields(documented)
        ]
        assert problems_of(documented, without=("PR01",)) == []
    else:
        assert problems_of(documented) == []


@pytest.mark.parametrize("documented", by_name(public_methods()))
def test_public_methods_are_documented(documented):
    assert problems_of(documented) == []


@pytest.mark.parametrize(
    "documented",
    by_name(public_objects())
    + [
        pytest.param(method, id=name)
        for name, method in public_methods()
        # Those of scikit-learn's are explained there; the example of a display is its class's.
        if not hasattr(BaseEstimator, method.__name__) and "Display." not in name
    ],
)
def test_public_objects_have_examples(documented):
    assert any(line.startswith(">>> ") for line in get_doc_object(documented)["Examples"])


@pytest.fixture(scope="module")
def broken_links():
    """The link check of ``docs/check_site.py``, which is a script and no part of a package."""
    spec = importlib.util.spec_from_file_location("check_site", DOCS / "check_site.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.broken_links


def test_site_without_broken_links(broken_links, tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "picture.png").touch()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="part/b.html#here%20too">b</a><a href="#top">up</a>'
        '<img src="picture.png" srcset="picture.png, picture.png 2x">'
        '<a href="https://example.org/x">other sites are not looked at</a>'
    )
    (tmp_path / "part" / "b.html").write_text('<p id="here too"><a href="../index.html">a</a>')
    assert broken_links(tmp_path) == {}


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        ('<a href="none.html">', "no file for none.html"),
        ('<a href="#none">', "no such place: #none"),
        ('<a href="other.html#none">', "no such place: other.html#none"),
        ('<img src="none.png">', "no file for none.png"),
        ('<img src="other.html" srcset="other.html, none.png 2x">', "no file for none.png"),
        ('<script src="https://example.org/x.js">', "loads https://example.org/x.js"),
        ('<link href="//example.org/x.css">', "loads //example.org/x.css"),
    ],
)
def test_site_with_a_broken_link(broken_links, tmp_path, element, problem):
    (tmp_path / "index.html").write_text(element)
    (tmp_path / "other.html").write_text("<p>")
    assert broken_links(tmp_path) == {"index.html": [problem]}


@pytest.mark.parametrize(
    ("page", "heading"),
    [("README.md", "## Benchmarks"), ("docs/user_guide/large_data.md", "# Large data")],
)
def test_times_are_those_of_the_benchmarks(page, heading):
    """A figure that was measured again is changed everywhere."""
    time = re.compile(r"\b\d+(?:\.\d+)? (?:ms|s)\b")
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    told = set(time.findall(text))
    assert len(told) > 4
    assert told <= set(time.findall((ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")))
