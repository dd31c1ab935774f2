"""`chatd` as a program for `python -c`."""

RUN = "import gc; gc.set_threshold(100_000, 20, 20); from chatd.cli.main import app; app()"
"""The collector looks at what is being imported again and again, for half a second of every start.
Who serves sets its own pace afterwards, see `chatd.memory`."""
