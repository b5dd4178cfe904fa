"""The list of parts of an image is valid against the schema of CycloneDX 1.6.

FOREBAY_SBOM names the list of an image that was built, taken out of it: docs/container.md.
"""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("cyclonedx", reason="make test-heavy-sbom has the schema")
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.unit.image.test_finish import STATUS, write_distribution
from tools.image import finish

pytestmark = pytest.mark.heavy


def faults(listed):
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(listed), all_errors=True)
    return [str(fault) for fault in found or ()]


@pytest.fixture
def listed(tmp_path):
    for folder, text in (("etc", 'ID=debian\nVERSION_ID="13"\n'), ("var/lib/dpkg", STATUS)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / ("os-release" if folder == "etc" else "status")).write_text(text)
    write_distribution(tmp_path / "site", "plain", "1.0", "License-Expression: MIT")
    write_distribution(tmp_path / "site", "other", "1.0", "License: Proprietary")
    return finish.parts(tmp_path / "site", tmp_path, "1.0")


def test_the_list_of_this_environment_and_of_a_base_is_valid(listed):
    assert faults(listed) == []
    assert faults(finish.parts(finish.SITE, None, "1.0")) == []


@pytest.mark.skipif("FOREBAY_SBOM" not in os.environ, reason="FOREBAY_SBOM names no list of an image")
def test_the_list_of_an_image_is_valid():
    assert faults(json.loads(Path(os.environ["FOREBAY_SBOM"]).read_text())) == []


def test_the_schema_refuses_a_list_that_is_not(listed):
    listed["components"][0]["licenses"] = [{"license": {"id": "no such licence"}}]
    assert faults(listed)
