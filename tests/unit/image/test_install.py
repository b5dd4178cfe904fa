"""A build whose packages cannot be installed ends with one line that names the build argument to set."""

import base64
import hashlib
import platform
import re
import subprocess
import sys
import venv
import zipfile

import pytest

from tools.image import install
from tools.lock_image import X86_ALONE, lines


def write_wheel(folder, name, version, tag="py3-none-any"):
    """Write a wheel of one empty module, and return its file."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = ""
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{file},sha256={digest},{len(text)}\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture
def environment(tmp_path):
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False, symlinks=True)
    return str(folder / "bin" / "python")


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder in place of an index, and locks of their own."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(install, "LOCKS", tmp_path / "locks")
    install.LOCKS.mkdir()
    return folder


def write_lock(name, path, digest=None, **options):
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    package, version, *_ = path.name.split("-")
    (install.LOCKS / f"{name}.txt").write_text(lines({package: (version, frozenset({digest}))}, **options))


def installed(environment):
    report = install.pip(["freeze", "--all"], environment)
    return re.findall(r"^[\w.-]+==\S+$", report, flags=re.MULTILINE)


def refusal(capsys, monkeypatch, *words):
    """The line that the command says for these words."""
    monkeypatch.setattr(sys, "argv", ["install.py", *words])
    with pytest.raises(SystemExit) as ended:
        install.main()
    line = str(ended.value.code)
    assert line.startswith("forebay: ")
    assert "\n" not in line
    assert "--build-arg " in line
    return line


@pytest.mark.slow
def test_locked_packages_are_installed_by_their_hashes_and_others_beside_them(wheels, environment, monkeypatch, capsys):
    write_lock("cpu", write_wheel(wheels, "alpha", "1.0"))
    monkeypatch.setattr(sys, "argv", ["install.py", "--into", environment, "cpu"])
    install.main()
    assert installed(environment) == ["alpha==1.0"]
    write_wheel(wheels, "alpha", "2.0")
    write_wheel(wheels, "tensorrt", "10.3")
    monkeypatch.setattr(sys, "argv", ["install.py", "--into", environment, "--argument", "TENSORRT", "tensorrt>=10.3"])
    install.main()
    assert installed(environment) == ["alpha==1.0", "tensorrt==10.3"]
    assert "Successfully installed tensorrt-10.3" in capsys.readouterr().out


@pytest.mark.slow
def test_what_is_installed_is_not_changed_for_tensorrt(wheels, environment, monkeypatch, capsys):
    path = write_wheel(wheels, "beta", "1.0")
    write_lock("cpu", path)
    install.install_locked("cpu", "EXTRAS", environment)
    write_wheel(wheels, "beta", "2.0")
    line = refusal(capsys, monkeypatch, "--into", environment, "--argument", "TENSORRT", "beta>=2")
    assert "needs other versions of packages than the image has" in line


@pytest.mark.slow
def test_a_package_that_no_index_has(wheels, environment, monkeypatch, capsys):
    line = refusal(capsys, monkeypatch, "--into", environment, "--argument", "TENSORRT", "tensorrt>=10.3")
    assert f"no wheel of it for Python {platform.python_version()} on {platform.machine()}" in line
    assert "PIP_EXTRA_INDEX_URL=" in line


@pytest.mark.slow
def test_a_wheel_for_another_processor(wheels, environment, monkeypatch, capsys):
    path = write_wheel(wheels, "tensorrt", "10.3", "py3-none-manylinux_2_28_riscv64")
    line = refusal(capsys, monkeypatch, "--into", environment, "--argument", "TENSORRT", "tensorrt>=10.3")
    assert "the index has no wheel of it" in line
    line = refusal(capsys, monkeypatch, "--into", environment, "--argument", "TENSORRT", str(path))
    assert "another processor" in line


@pytest.mark.slow
def test_another_file_than_that_of_the_lock(wheels, environment, monkeypatch, capsys):
    write_lock("cuda", write_wheel(wheels, "gamma", "1.0"), digest="0" * 64)
    line = refusal(capsys, monkeypatch, "--into", environment, "cuda")
    assert line.startswith("forebay: locks/cuda.txt cannot be installed: the index offers another file than the lock")
    assert "PIP_INDEX_URL" in line


@pytest.mark.slow
def test_an_index_that_cannot_be_reached(wheels, environment, monkeypatch, capsys):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    line = refusal(capsys, monkeypatch, "--into", environment, "--argument", "TENSORRT", "tensorrt>=10.3")
    assert "the index cannot be reached" in line


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("wheel_stub.error.InstallFailedError:\nerror: metadata-generation-failed", "NVIDIA's index"),
        ("SSLError(CERTIFICATE_VERIFY_FAILED)\nNo matching distribution found", "certificate"),
        ("WARNING: Retrying (Retry(total=0)) 'ReadTimeout'\nNo matching distribution found", "cannot be reached"),
        ("error: metadata-generation-failed", "cannot be built"),
        ("first\nERROR: No space left on device\n\n", "pip: ERROR: No space left on device"),
        ("", "pip: no output"),
    ],
)
def test_the_most_telling_words_of_pip_decide(log, cause):
    assert cause in install.cause_of(log)


@pytest.mark.parametrize("name", ["dev", "tensorrt", "../cpu", "a b"])
def test_an_extra_without_a_lock_names_those_that_have_one(name, wheels, monkeypatch, capsys):
    write_lock("otel", write_wheel(wheels, "delta", "1.0"))
    line = refusal(capsys, monkeypatch, name)
    assert line.endswith("set --build-arg EXTRAS to some of otel")


def test_a_lock_for_x86_64_alone_is_refused_elsewhere(wheels, monkeypatch, capsys):
    write_lock("load", write_wheel(wheels, "epsilon", "1.0"), x86_alone_because=X86_ALONE["load"])
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    line = refusal(capsys, monkeypatch, "load")
    assert "is for x86_64 alone, and this is aarch64" in line


def test_no_extra_installs_nothing(monkeypatch):
    ended = subprocess.run([sys.executable, install.__file__, "--argument", "EXTRAS", ""], check=False)
    assert ended.returncode == 0
