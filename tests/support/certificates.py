"""Certificates for tests, made with the `openssl` command: an authority and signed certificates, in a folder."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


class Authority:
    """Signs certificates for 127.0.0.1 and localhost. Files: `<name>.pem` and `<name>.key` in `folder`."""

    def __init__(self, folder: Path, name="authority"):
        self.folder = folder
        self.name = name
        self.certificate = folder / f"{name}.pem"
        request = ["req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}"]
        _openssl(*request, "-keyout", folder / f"{name}.key", "-out", self.certificate)

    def issue(self, name, days=2):
        """Make a key and a certificate; returns their paths (certificate, key)."""
        certificate, key, request = (self.folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signer = ["-CA", self.certificate, "-CAkey", self.folder / f"{self.name}.key", "-CAcreateserial"]
        _openssl(
            "x509", "-req", "-in", request, *signer, "-days", str(days), "-extfile", extensions, "-out", certificate
        )
        return certificate, key


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
