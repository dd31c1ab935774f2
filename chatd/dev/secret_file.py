"""Files that only their owner may read."""

import os
import secrets
import shutil
from pathlib import Path


def password_in(file: Path) -> str:
    """The password kept there, made up at the first call."""
    if not file.exists():
        write_secret(file, secrets.token_urlsafe(24))
    return file.read_text()


def write_secret(file: Path, text: str, *, owner: str | None = None) -> None:
    """Replace the file; it is never readable by others, not for a moment."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    if owner is not None:
        shutil.chown(file, owner)
