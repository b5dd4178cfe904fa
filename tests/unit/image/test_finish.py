"""The list of parts of an image: names, licences, Debian's packages, and nothing that was removed."""

import json
import re
from importlib import metadata

import pytest
from packaging.licenses import canonicalize_license_expression

from tests.support.repository import ROOT
from tools.image import finish
from tools.lock import read_lock

STATUS = """\
Package: libc6
Status: install ok unpacked
Version: 2.41-12+deb13u5
Architecture: amd64
Description: GNU C Library
 a line: that belongs to the description

Package: old-config
Status: deinstall ok config-files
Version: 1
Architecture: all

Package: python3.13
Version: 1:3.13.5-2
Architecture: amd64
"""


def write_distribution(site, name, version, *lines):
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    headers = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]
    (folder / "METADATA").write_text("\n".join(headers) + "\n")
    return metadata.PathDistribution(folder)


@pytest.fixture
def base(tmp_path):
    for file, text in {
        "etc/os-release": 'ID=debian\nVERSION_ID="13"\n',
        "var/lib/dpkg/status": STATUS,
    }.items():
        path = tmp_path / "base" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path / "base"


def components(site, base=None):
    return finish.parts(site, base, "1.2.3")["components"]


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT OR Apache-2.0"], {"expression": "MIT OR Apache-2.0"}),
        (["License-Expression: mit"], {"expression": "MIT"}),
        (["License: Apache 2.0"], {"expression": "Apache-2.0"}),
        (["License: BSD-3-Clause"], {"expression": "BSD-3-Clause"}),
        (["Classifier: License :: OSI Approved :: MIT License"], {"expression": "MIT"}),
        (
            ["License: see LICENSE", "Classifier: License :: OSI Approved :: Apache Software License"],
            {"expression": "Apache-2.0"},
        ),
        (["License: Proprietary"], {"license": {"name": "Proprietary"}}),
        ([], {"license": {"name": "unknown"}}),
    ],
)
def test_a_licence_is_an_expression_of_spdx_or_the_words_of_the_package(lines, licence, tmp_path):
    assert finish.licence_of(write_distribution(tmp_path, "some", "1.0", *lines)) == licence


def test_every_package_of_the_image_has_an_expression_of_spdx():
    for name in read_lock(ROOT / "locks" / "cpu.txt"):
        licence = finish.licence_of(metadata.distribution(name))
        assert canonicalize_license_expression(licence["expression"]) == licence["expression"], name


def test_the_name_in_an_address_is_the_normal_form(tmp_path):
    write_distribution(tmp_path, "Typing.Extensions_x", "1.0+local")
    (part,) = components(tmp_path)
    assert part["name"] == "Typing.Extensions_x"
    assert part["purl"] == "pkg:pypi/typing-extensions-x@1.0%2Blocal"


def test_debians_packages_are_parts_unless_they_were_removed(base, tmp_path):
    assert [(part["name"], part["purl"]) for part in components(tmp_path / "site", base)] == [
        ("libc6", "pkg:deb/debian/libc6@2.41-12%2Bdeb13u5?arch=amd64&distro=debian-13"),
        ("python3.13", "pkg:deb/debian/python3.13@1%3A3.13.5-2?arch=amd64&distro=debian-13"),
    ]


def test_a_base_without_dpkg_has_its_packages_in_files(base, tmp_path):
    folder = base / "var" / "lib" / "dpkg"
    (folder / "status").unlink()
    (folder / "status.d").mkdir()
    (folder / "status.d" / "zlib1g").write_text("Package: zlib1g\nVersion: 1:1.3\nArchitecture: arm64\n")
    assert [part["name"] for part in components(tmp_path / "site", base)] == ["zlib1g"]


def test_a_package_that_was_removed_is_no_part(tmp_path):
    write_distribution(tmp_path, "pygments", "2.0")
    write_distribution(tmp_path, "rich", "15.0")
    finish.remove(tmp_path, finish.UNREAD)
    assert [part["name"] for part in components(tmp_path)] == ["rich"]


def test_the_list_is_the_same_every_time_and_names_each_part_once(base, tmp_path):
    for name in ("b", "a"):
        write_distribution(tmp_path / "site", name, "1.0")
    first, again = (json.dumps(finish.parts(tmp_path / "site", base, "1")) for _ in range(2))
    assert first == again
    addresses = re.findall(r'"bom-ref": "([^"]+)"', first)
    assert len(addresses) == len(set(addresses)) == 5


def test_a_label_of_another_version_ends_the_build():
    finish.check_version("0.1.0", "0.1.0")
    with pytest.raises(SystemExit, match=r"says '0\.2' and the package is 0\.1\.0: set --build-arg VERSION=0\.1\.0"):
        finish.check_version("0.2", "0.1.0")
