"""The workflows, as GitHub would expand them; and what the check of them finds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / ".github/scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


matrix = load("expand_matrix")
archives = load("check_archives")


def test_the_example_of_githubs_documentation() -> None:
    rows = matrix.expand(
        {
            "fruit": ["apple", "pear"],
            "animal": ["cat", "dog"],
            "include": [
                {"color": "green"},
                {"color": "pink", "animal": "cat"},
                {"fruit": "apple", "shape": "circle"},
                {"fruit": "banana"},
                {"fruit": "banana", "animal": "cat"},
            ],
        }
    )
    assert rows == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_exclude_and_rows_alone() -> None:
    assert matrix.expand({"a": [1, 2], "exclude": [{"a": 2}]}) == [{"a": 1}]
    assert matrix.expand({"include": [{"a": 1}, {"a": 1, "b": 2}]}) == [{"a": 1}, {"a": 1, "b": 2}]


STEP = {"uses": "actions/checkout@" + "0" * 40}


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        (
            {
                "unit": {
                    "name": "unit ${{ matrix.python }} ${{ matrix.label }}",
                    "strategy": {
                        "matrix": {
                            "runner": ["linux"],
                            "python": ["3.10", "3.11"],
                            "include": [
                                {"runner": "linux", "python": "3.10", "label": "old pika"}
                            ],
                        }
                    },
                }
            },
            "no plain row of 3.10",
        ),
        (
            {"unit": {"strategy": {"matrix": {"include": [
                {"runner": "linux", "python": "3.10"}, {"runner": "mac", "python": "3.10"},
                {"runner": "linux", "python": "3.11"}]}}}},
            "3 jobs are named 'unit'",
        ),
        ({"a": {"steps": [{"uses": "actions/checkout@v6"}]}}, "not pinned by a commit"),
        ({"a": {"steps": [STEP, {"run": "if true; then"}]}}, "a, step 2: "),
        ({"a": {"steps": [{"run": "echo ${{ github.ref }}"}]}}, "an expression in a script"),
        ({"a": {}, "b": {}, "check": {"needs": ["a"]}}, "check does not need b"),
    ],
)  # fmt: skip
def test_what_is_found(jobs: dict[str, Any], problem: str) -> None:
    found = matrix.check_workflow("ci.yml", {"jobs": jobs}, ["3.10", "3.11"])
    assert [text for text in found if problem in text], found


def test_nothing_is_found_in_a_good_one() -> None:
    unit = {
        "name": "unit ${{ matrix.python }}",
        "steps": [STEP, {"run": 'echo "$WITH"', "env": {"WITH": "${{ matrix.with }}"}}],
        "strategy": {"matrix": {"runner": ["linux"], "python": ["3.10", "3.11"]}},
    }
    jobs = {"unit": unit, "check": {"needs": ["unit"]}}
    assert matrix.check_workflow("ci.yml", {"jobs": jobs}, ["3.10", "3.11"]) == []


def wheels(**pythons: list[str]) -> list[Path]:
    return [
        Path(f"pika_twisted-1.0-{tag}-{tag}-{platform}.whl")
        for platform, tags in pythons.items()
        for tag in tags
    ]


def test_a_release_has_the_same_pythons_on_each_platform() -> None:
    both = ["cp310", "cp311"]
    names = {
        "manylinux_2_17_x86_64.manylinux2014_x86_64": both,
        "macosx_11_0_arm64": both,
        "macosx_10_15_x86_64": ["cp310"],
    }
    found = archives.check_release(wheels(**names), ["3.10", "3.11"])
    assert found == ["macosx_x86_64 has no wheel for cp311"]
    found = archives.check_release(wheels(**names), ["3.10", "3.11", "3.12"])
    assert "macosx_arm64 has no wheel for cp312" in found
    names["macosx_10_15_x86_64"] = both
    assert archives.check_release(wheels(**names), ["3.10", "3.11"]) == []
    assert archives.check_release([], ["3.10"]) == ["there are no wheels"]
