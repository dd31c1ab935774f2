"""The journal of the demo server's unsafe tool."""

from pathlib import Path

from chatd.dev.demo_mcp import Journal


async def test_the_journal_is_kept_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    first = Journal(file)
    assert await first.append("one") == 1
    assert await first.append("two\nlines") == 2
    assert await Journal(file).append("three") == 3
    assert file.read_text() == "one\ntwo lines\nthree\n"


async def test_without_a_file_it_is_kept_in_memory() -> None:
    journal = Journal()
    assert [await journal.append("one"), await journal.append("two")] == [1, 2]
