"""The packages of install hints exist."""

import tomllib
from importlib import metadata

import pytest

from forebay_server.engines import extras
from tests.support.repository import ROOT

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_every_extra_is_declared_and_none_is_forgotten():
    assert set(extras.EXTRAS) == DECLARED.keys() - {"dev"}


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_a_checkout_installs_its_own_extra(extra):
    assert extras.install_hint(extra) == f"pip install '.[{extra}]'"


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_elsewhere_the_packages_are_named(monkeypatch, extra):
    monkeypatch.setattr(extras, "_is_checkout", lambda: False)
    hint = extras.install_hint(extra)
    for requirement in DECLARED[extra]:
        name, _, bound = requirement.partition(">=")
        assert name in hint
        assert bound.split(",")[0] in hint


def test_without_metadata_it_is_a_checkout(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extras, "_is_checkout", lambda: False)
    monkeypatch.setattr(extras.metadata, "requires", missing)
    assert extras.install_hint("build") == "pip install '.[build]'"


def test_a_checkout_of_which_nothing_is_installed_installs_the_client_as_well(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extras.metadata, "version", missing)
    assert extras.install_hint("build") == "pip install ./client '.[build]'"
    assert (ROOT / "client" / "pyproject.toml").is_file()


def test_an_extra_that_does_not_exist_is_never_named():
    with pytest.raises(KeyError):
        extras.install_hint("magic")
