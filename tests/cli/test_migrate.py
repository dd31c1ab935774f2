"""`chatd migrate`."""

from tests.cli.commands import Chatd


def test_up_and_down_and_up_again(chatd: Chatd, empty_database: str) -> None:
    def migrate(*words: str) -> str:
        return chatd("migrate", *words, CHATD_DATABASE_URL=empty_database).stdout

    up = migrate()
    assert up.startswith("The database went from no revision to ")
    assert migrate() == f"The database is at {up.split()[-1].rstrip('.')} already.\n"
    assert migrate("--down", "base").endswith("to no revision.\n")
    assert migrate("--to", "head") == up


def test_the_wrong_password_is_said_in_a_line(chatd: Chatd, empty_database: str) -> None:
    scheme, _, rest = empty_database.partition("://")
    url = f"{scheme}://chatd:wrong@{rest.partition('@')[2]}"
    result = chatd("migrate", fails=True, CHATD_DATABASE_URL=url)
    assert "password authentication failed" in result.stderr
    assert "Traceback" not in result.output


def test_a_database_that_is_away_is_said_without_its_password(chatd: Chatd) -> None:
    url = "postgresql://chatd:very-secret@127.0.0.1:9/chatd"
    result = chatd("migrate", fails=True, CHATD_DATABASE_URL=url)
    assert "The database is away." in result.stderr
    assert "very-secret" not in result.output
