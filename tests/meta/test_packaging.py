"""The distribution, its packages and its locks fit together."""

from importlib import metadata

import pytest
from packaging.utils import canonicalize_name

from tests.support.repository import ROOT
from tools.lock import read_lock, read_requirements


@pytest.mark.parametrize("package", ["forebay", "service", "engines", "loadtest", "bench"])
def test_generic_package_names_belong_to_this_distribution_alone(package):
    assert set(metadata.packages_distributions()[package]) == {"forebay"}


def test_command_is_the_products_name():
    (script,) = metadata.entry_points(group="console_scripts", name="forebay")
    assert script.value == "service.cli:main"


@pytest.mark.parametrize(("index", "lock"), [(0, "requirements.lock"), (1, "requirements-dev.lock")])
def test_lock_covers_every_requirement_with_a_version_that_it_allows(index, lock):
    locked = read_lock(ROOT / lock)
    for requirement in read_requirements()[index]:
        version = locked.get(canonicalize_name(requirement.name), "none")
        assert version != "none", f"{requirement.name} is not in {lock}: run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), f"{lock} has {version} for {requirement}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_holds_exact_versions_and_no_index(lock):
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line or line == "-r requirements.lock" for line in lines)


def test_locks_do_not_contradict_each_other():
    base, dev = read_lock(ROOT / "requirements.lock"), read_lock(ROOT / "requirements-dev.lock")
    assert base.keys() & dev.keys() == set()
