"""`chatd chat` when a turn waits for its user: approvals, questions, the client's own tools."""

import asyncio
import json
from collections.abc import Generator
from typing import Any

import pytest

from tests.cli.running import Dev, run
from tests.cli.terminal import Terminal
from tests.relay import Relay, relay_to

APPEND = '/call demo__append {"text":"hi"}\n/echo'


@pytest.fixture(scope="module")
def dev(shared_dev: Dev) -> Generator[Dev]:
    """One whose `append` needs an approval, for as long as these tests run."""
    set_tools(shared_dev, {"append": {"require_approval": "always"}})
    yield shared_dev
    set_tools(shared_dev, {})


def set_tools(dev: Dev, settings: dict[str, Any]) -> None:
    with dev.http(admin=True) as admin:
        (server,) = admin.get("/mcp/servers").json()
        patched = admin.patch(f"/mcp/servers/{server['id']}", json={"tool_settings": settings})
    assert patched.is_success, patched.text


def appended(dev: Dev) -> int:
    """How often `append` has run."""
    journal = dev.data / "logs" / "demo-journal.txt"
    return len(journal.read_text().splitlines()) if journal.exists() else 0


@pytest.fixture
def lines(dev: Dev) -> int:
    """How often it had run before the test."""
    return appended(dev)


def waiting(dev: Dev, chat: str) -> list[dict[str, Any]]:
    with dev.http() as http:
        turns = http.get(f"/chats/{chat}/turns").json()["turns"]
    return turns[0]["open_items"]


def latest_chat(dev: Dev) -> str:
    with dev.http() as http:
        return http.get("/chats", params={"limit": 1}).json()[0]["id"]


# --- nobody there to be asked


def test_a_script_is_told_what_waits_and_can_answer(dev: Dev) -> None:
    asked = run("chat", "--data-dir", dev.data, APPEND)
    assert asked.returncode == 3
    chat = latest_chat(dev)
    (item,) = waiting(dev, chat)
    assert f"approval {item['id']}: demo__append" in asked.stderr
    assert f"--chat {chat}" in asked.stdout


def test_with_json_the_last_line_has_the_ids(dev: Dev) -> None:
    asked = run("chat", "--data-dir", dev.data, "--json", APPEND)
    assert asked.returncode == 3
    last = json.loads(asked.stdout.splitlines()[-1])
    assert last["event"] == "action_required"
    assert [item["kind"] for item in last["data"]["open_items"]] == ["approval"]
    assert asked.stderr == ""


def test_a_prompt_without_a_person_stops_at_what_waits(dev: Dev) -> None:
    said = run("chat", "--data-dir", dev.data, said='/call demo__append {"text":"x"}\n/say never\n')
    assert said.returncode == 3
    assert "never" not in said.stdout


def test_approve_all_calls_and_goes_on_to_the_end(dev: Dev, lines: int) -> None:
    result = run("chat", "--data-dir", dev.data, "--approve", "all", APPEND)
    assert result.returncode == 0
    assert f"← demo__append {lines + 1}\n{lines + 1}\n" in result.stdout
    assert "approve: demo__append" in result.stderr


def test_approve_none_calls_nothing_and_goes_on(dev: Dev, lines: int) -> None:
    result = run("chat", "--data-dir", dev.data, "--approve", "none", APPEND)
    assert result.returncode == 0
    assert "The user denied this call." in result.stdout
    assert appended(dev) == lines


def test_approvals_do_not_answer_questions(dev: Dev) -> None:
    result = run("chat", "--data-dir", dev.data, "--approve", "all", "/call demo__ask {}")
    assert result.returncode == 3
    assert "elicitation" in result.stderr
    assert "What is your name?" in result.stderr


# --- a person at a terminal


def test_what_was_answered_elsewhere_is_told_and_the_turn_goes_on(dev: Dev) -> None:
    with Terminal.running("chat", "--data-dir", dev.data, APPEND) as terminal:
        terminal.expect("Approve?")
        chat = latest_chat(dev)
        (item,) = waiting(dev, chat)
        with dev.http() as http:
            http.post(f"/chats/{chat}/approvals/{item['id']}", json={"decision": "deny"})
        terminal.type("y")
        terminal.expect("This was answered before, with another answer.")
        terminal.expect("The user denied this call.")
        assert terminal.finish() == 0


async def test_an_answer_that_reaches_nobody_is_asked_for_again(dev: Dev, lines: int) -> None:
    there = dev.described()
    async with relay_to(there["url"]) as (relay, url):
        words = ("chat", "--url", url, "--token", there["member_token"], APPEND)
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(answer_twice, words, relay, loop)
    assert appended(dev) == lines + 1


def answer_twice(words: tuple[str, ...], relay: Relay, loop: asyncio.AbstractEventLoop) -> None:
    """Answer while the server is away, and once more when it is back."""
    with Terminal.running(*words) as terminal:
        terminal.expect("Approve?")
        loop.call_soon_threadsafe(relay.refuse)
        terminal.type("y")
        terminal.expect("Nobody answers at")
        terminal.expect("connection lost, trying again")
        loop.call_soon_threadsafe(relay.accept)
        terminal.expect("Approve?")
        terminal.type("y")
        assert terminal.finish() == 0


def test_the_call_is_shown_before_it_is_approved(dev: Dev, lines: int) -> None:
    with Terminal.running("chat", "--data-dir", dev.data, APPEND) as terminal:
        terminal.expect('demo would run append:\n│ {\n│   "text": "hi"\n│ }\n')
        terminal.expect("Approve? [y/N/reason] ")
        terminal.type("y")
        terminal.expect(f"← demo__append {lines + 1}")
        assert terminal.finish() == 0


@pytest.mark.parametrize(
    ("said", "told"),
    [("", "The user denied this call."), ("Wrong file.", "denied this call: Wrong file.")],
)
def test_anything_but_yes_denies(dev: Dev, said: str, told: str) -> None:
    with Terminal.running("chat", "--data-dir", dev.data, APPEND) as terminal:
        terminal.expect("Approve?")
        terminal.type(said)
        terminal.expect(told)
        assert terminal.finish() == 0


def test_parallel_calls_are_asked_about_one_by_one(dev: Dev, lines: int) -> None:
    both = '/call demo__append {"text":"a"} & demo__append {"text":"b"}'
    with Terminal.running("chat", "--data-dir", dev.data, both) as terminal:
        terminal.expect("Approve?")
        terminal.type("n")
        terminal.expect("Approve?")
        terminal.type("y")
        assert terminal.finish() == 0
    assert appended(dev) == lines + 1


def test_end_of_input_leaves_it_waiting(dev: Dev) -> None:
    with Terminal.running("chat", "--data-dir", dev.data, APPEND) as terminal:
        terminal.expect("Approve?")
        terminal.end_of_input()
        terminal.expect("The turn waits for:")
        assert terminal.finish() == 3
    assert len(waiting(dev, latest_chat(dev))) == 1


def test_a_form_is_filled_in_and_the_turn_goes_on(dev: Dev) -> None:
    words = '/call demo__ask {}\n/call demo__ask {"question":"Again?"}'
    with Terminal.running("chat", "--data-dir", dev.data, words) as terminal:
        terminal.expect("What is your name?")
        terminal.expect("Name: ")
        terminal.type("")
        terminal.expect("This is needed.")
        terminal.expect("Name: ")
        terminal.type("Ada")
        terminal.expect("Hello, Ada!")
        terminal.expect("│ Again?")
        terminal.expect("Name: ")
        terminal.type("!decline")
        terminal.expect("The user chose: decline")
        assert terminal.finish() == 0


def test_a_page_is_shown_and_not_opened(dev: Dev) -> None:
    url = "https://example.com/" + "a" * 400
    words = f'/call demo__visit {{"url":"{url}"}}'
    with Terminal.running("chat", "--data-dir", dev.data, words) as terminal:
        terminal.expect(f"│ {url}\n")
        terminal.expect("Done?")
        terminal.type("y")
        terminal.expect("The user chose: accept")
        assert terminal.finish() == 0


def test_the_clients_own_tools_are_answered_together(dev: Dev) -> None:
    tool = {"name": "pick", "description": "Pick.", "input_schema": {"type": "object"}}
    with dev.http() as http:
        body = {"content": [{"type": "text", "text": "/say x"}], "unsafe_dynamic_tools": [tool]}
        created = http.post("/chats", json=body)
    chat = created.json()["id"]
    words = '/call pick {"of":[1,2]} & pick {"of":[3]}\n/messages'
    with Terminal.running("chat", "--data-dir", dev.data, "--chat", chat, words) as terminal:
        terminal.expect("pick is yours to run:")
        terminal.expect("text or JSON")
        terminal.type('{"picked": 2}')
        terminal.expect("text or JSON")
        terminal.type("!error none left")
        terminal.expect('← pick {"picked":2}')
        terminal.expect("← pick none left")
        assert terminal.finish() == 0


def test_what_a_server_says_cannot_steer_the_terminal(dev: Dev) -> None:
    words = '/call demo__ask {"question":"a\\u001b[2Jb\\u202ec\\nApprove? [y/N]"}'
    with Terminal.running("chat", "--data-dir", dev.data, words) as terminal:
        terminal.expect("asks:")
        terminal.expect("│ abc\n│ Approve? [y/N]\n")
        terminal.end_of_input()
        terminal.expect("The user chose: cancel")
        assert terminal.finish() == 0


# --- Ctrl-C


def test_the_first_interrupt_stops_the_turn(dev: Dev) -> None:
    with Terminal.running("chat", "--data-dir", dev.data, "/long 5000 20") as terminal:
        terminal.expect("word3 ")
        terminal.interrupt()
        terminal.expect("Stopped.")
        assert terminal.finish() == 130
    with dev.http() as http:
        turns = http.get(f"/chats/{latest_chat(dev)}/turns").json()["turns"]
    assert turns[0]["status"] == "interrupted"


def test_the_second_interrupt_leaves(dev: Dev) -> None:
    (api,) = dev.processes("/chatd api --fd")
    with Terminal.running("chat", "--data-dir", dev.data, "/hang 60") as terminal:
        terminal.expect("thinking")
        api.suspend()  # nobody hears the first one
        try:
            terminal.interrupt()
            terminal.expect("Ctrl-C again leaves")
            terminal.interrupt()
            terminal.expect("Not watching any longer.")
        finally:
            api.resume()
        assert terminal.finish() == 130
    with dev.http() as http:
        http.post(f"/chats/{latest_chat(dev)}/interrupt")


def test_an_interrupt_at_a_question_stops_the_turn(dev: Dev) -> None:
    with Terminal.running("chat", "--data-dir", dev.data, APPEND) as terminal:
        terminal.expect("Approve?")
        terminal.interrupt()
        terminal.expect("Stopped.")
        assert terminal.finish() == 130
    assert waiting(dev, latest_chat(dev)) == []


def test_the_prompt_goes_on_after_an_interrupt(dev: Dev) -> None:
    with Terminal.running("chat", "--data-dir", dev.data) as terminal:
        terminal.expect("> ")
        terminal.type('/call demo__slow {"seconds":60}')
        terminal.expect("running demo__slow")
        terminal.interrupt()
        terminal.expect("Stopped.")
        terminal.expect("> ")
        terminal.type("/say still here")
        terminal.expect("\nstill here")
        terminal.end_of_input()
        assert terminal.finish() == 0


def test_progress_and_log_lines_of_a_tool_are_shown(dev: Dev) -> None:
    words = '/call demo__slow {"seconds":1,"steps":4}\n/call demo__talk {"n":2}'
    with Terminal.running("chat", "--data-dir", dev.data, words) as terminal:
        terminal.expect("running demo__slow: 50% step 2 of 4")
        terminal.expect("demo: line 1")
        assert terminal.finish() == 0
