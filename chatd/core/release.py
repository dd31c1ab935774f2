"""Which release of ours this is."""

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("chatd")
    except PackageNotFoundError:  # sources that nobody installed
        return "0"


VERSION = _version()
