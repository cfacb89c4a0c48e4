"""The package declares every folder that holds code, and names what it depends on."""

import importlib
import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OUTSIDE = {"build", "dist", "tests", "docs"}


def test_declared_packages_are_the_folders_with_code() -> None:
    folders = {
        init.parent.relative_to(ROOT)
        for init in ROOT.rglob("__init__.py")
        if init.relative_to(ROOT).parts[0] not in OUTSIDE
        and not init.relative_to(ROOT).parts[0].startswith(".")
    }
    declared = PROJECT["tool"]["setuptools"]["package-dir"]
    assert {Path(folder) for folder in declared.values()} == folders
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(declared)
    for name, folder in declared.items():
        assert name == "gateformer." + folder.replace("/", ".")


@pytest.mark.parametrize("package", PROJECT["tool"]["setuptools"]["packages"])
def test_packages_import_from_this_checkout(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert ROOT in Path(module.__file__).resolve().parents


def test_every_dependency_says_why_and_has_a_range() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    dependencies = [line for line in lines if re.match(r'  "[a-z].*[=<>].*",', line)]
    assert len(dependencies) >= len(PROJECT["project"]["dependencies"])
    for line in dependencies:
        assert re.search(r'",\s+# \w', line), f"no reason: {line}"


def test_version_is_the_installed_one() -> None:
    assert version("gateformer") == PROJECT["project"]["version"]


def test_continuous_integration_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
