"""`chatd chat` as a process, against a `chatd dev`."""

import asyncio
import json
import os
import pty
import re
import subprocess

import pytest

from chatd.dev.ports import free_port
from tests.cli.running import CHATD, Dev, environment, run
from tests.cli.terminal import Terminal
from tests.relay import relay_to

GO_ON = re.compile(r"To go on: chatd chat --chat ([0-9a-f-]{36})\n$")


def chat(dev: Dev, *words: str, said: str = "", fails: bool = False) -> str:
    """What it prints, without the hint at the end."""
    result = run("chat", "--data-dir", dev.data, *words, said=said)
    assert result.returncode == (1 if fails else 0), result.stderr
    return GO_ON.sub("", result.stdout).rstrip()


def test_the_answer_and_the_tool_calls_are_shown(shared_dev: Dev) -> None:
    assert chat(shared_dev, '/call demo__add {"a":2,"b":3}\n/say Five.') == (
        '→ demo__add {"a":2,"b":3}\n← demo__add 5\nFive.'
    )


def test_nothing_but_text_goes_into_a_file(shared_dev: Dev) -> None:
    result = run("chat", "--data-dir", shared_dev.data, '/call demo__slow {"seconds":0.1}')
    assert "\x1b" not in result.stdout + result.stderr
    assert "\r" not in result.stdout


def test_a_model_cannot_steer_the_terminal(shared_dev: Dev) -> None:
    assert chat(shared_dev, "/say a\x1b[31mb\x07 [bold]c") == "a[31mb [bold]c"


def test_a_terminal_sees_that_something_is_going_on(shared_dev: Dev) -> None:
    ours, theirs = pty.openpty()
    command = [CHATD, "chat", "--data-dir", shared_dev.data, '/call demo__slow {"seconds":0.3}']
    env = environment(TERM="xterm")
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=env):
        os.close(theirs)
        seen = b""
        while b"To go on" not in seen:
            seen += os.read(ours, 65_536)
    os.close(ours)
    assert b"running demo__slow" in seen
    assert "← demo__slow took 0.3 seconds".encode() in seen


def test_a_chat_goes_on(shared_dev: Dev) -> None:
    first = run("chat", "--data-dir", shared_dev.data, "/say first")
    found = GO_ON.search(first.stdout)
    assert found is not None
    told = chat(shared_dev, "--chat", found[1], "/messages")
    assert [message["content"] for message in json.loads(told)][-2:] == ["first", "/messages"]


def test_text_comes_from_stdin(shared_dev: Dev) -> None:
    assert chat(shared_dev, "-", said="/say from\n/say stdin") == "from"


def test_without_text_every_line_is_a_turn_of_one_chat(shared_dev: Dev) -> None:
    result = run("chat", "--data-dir", shared_dev.data, said="/say one\n\n/fail 401\n/say two\n")
    assert result.stdout.startswith("one\ntwo\n")
    assert "HTTP 401" in result.stderr
    assert result.returncode == 0


def test_in_plan_mode_the_demo_tools_are_not_offered(shared_dev: Dev) -> None:
    offered = chat(shared_dev, "--plan", "/tools")
    assert "spawn_agent" in offered
    assert "demo__" not in offered


def test_a_plan_is_proposed_approved_and_carried_out(shared_dev: Dev) -> None:
    plan = json.dumps({"content": "1. Add.\n" + '/call demo__add {"a":2,"b":3}\n/say Done.'})
    said = f"/plan on\n/call propose_plan {plan}\n/approve-plan Now.\n/tools\n/plan on\n/tools\n"
    told = chat(shared_dev, said=said)
    assert told.startswith("Plan:\n│ 1. Add.\n")
    assert '→ demo__add {"a":2,"b":3}\n← demo__add 5\nDone.\n' in told
    after, again = told.splitlines()[-2:]
    assert "demo__add" in after
    assert "propose_plan" not in after
    assert "propose_plan" in again


def test_the_plan_that_was_read_is_approved_and_no_newer_one(shared_dev: Dev) -> None:
    def propose(words: str) -> str:
        return f"/call propose_plan {json.dumps({'content': words})}"

    with Terminal.running("chat", "--data-dir", shared_dev.data, "--plan") as terminal:
        terminal.type(propose("1. Read."))
        terminal.expect("carries it out")
        with shared_dev.http() as http:
            (newest,) = http.get("/chats", params={"limit": 1}).json()
        chat(shared_dev, "--chat", newest["id"], propose("2. Unread."))
        terminal.type("/approve-plan")
        terminal.expect("There is a newer plan.")
    assert "2. Unread." in chat(shared_dev, "--chat", newest["id"], "/approve-plan")


def test_without_a_plan_there_is_nothing_to_approve(shared_dev: Dev) -> None:
    nothing = run("chat", "--data-dir", shared_dev.data, "/approve-plan")
    assert (nothing.returncode, nothing.stderr) == (
        1,
        "There is no plan to approve.\nNothing was said yet.\n",
    )
    first = run("chat", "--data-dir", shared_dev.data, "/say first")
    found = GO_ON.search(first.stdout)
    assert found is not None
    refused = run("chat", "--data-dir", shared_dev.data, "--chat", found[1], "/approve-plan")
    assert (refused.returncode, refused.stderr) == (1, "There is no plan to approve.\n")


def test_a_model_is_chosen_by_name(shared_dev: Dev) -> None:
    assert chat(shared_dev, "--model", "scripted-model", "/say chosen") == "chosen"
    refused = run("chat", "--data-dir", shared_dev.data, "--model", "nope", "hi")
    assert refused.returncode == 1
    assert refused.stderr == "There is no model nope.\nThere are: scripted-model.\n"


def test_events_are_printed_as_json(shared_dev: Dev) -> None:
    events = [json.loads(line) for line in chat(shared_dev, "--json", "/say x").splitlines()]
    assert events[0]["event"] == "turn"
    assert events[-1]["data"]["status"] == "completed"


def test_a_failed_turn_is_a_failed_command(shared_dev: Dev) -> None:
    failed = run("chat", "--data-dir", shared_dev.data, "/fail 401")
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error (auth): ")
    assert GO_ON.search(failed.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--token", "chatd_wrong", "hi"], "The token is not valid."),
        (["--chat", "00000000-0000-0000-0000-000000000000", "hi"], "Resource not found"),
        (["--chat", "nonsense", "hi"], "Invalid chat ID."),
        (["-"], "There is nothing to say."),
    ],
)
def test_a_refusal_is_said_in_the_servers_words(
    shared_dev: Dev, words: list[str], said: str
) -> None:
    refused = run("chat", "--data-dir", shared_dev.data, *words)
    assert refused.returncode == 1
    assert refused.stderr.startswith(said)


def test_without_a_server_it_says_what_to_do(shared_dev: Dev) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    nobody = run("chat", "--url", url, "--token", "t", "hi")
    assert (nobody.returncode, nobody.stderr) == (
        1,
        f"Nobody answers at {url}.\nIs `chatd dev` running?\n",
    )
    nowhere = run("chat", "--data-dir", shared_dev.data / "elsewhere", "hi")
    assert nowhere.returncode == 1
    assert "Start `chatd dev`" in nowhere.stderr


def test_no_token_goes_to_a_server_it_is_not_for(shared_dev: Dev) -> None:
    url = shared_dev.described()["url"]
    refused = run("chat", "--data-dir", shared_dev.data, "hi", CHATD_URL=url)
    assert refused.returncode == 1
    assert "A token is needed." in refused.stderr


async def test_a_lost_connection_costs_no_text_and_repeats_none(shared_dev: Dev) -> None:
    there = shared_dev.described()
    async with relay_to(there["url"]) as (relay, url):
        process = await asyncio.create_subprocess_exec(
            *(CHATD, "chat", "--url", url, "/long 60 20"),
            env=environment(CHATD_TOKEN=there["member_token"]),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        text = await process.stdout.readexactly(20)
        relay.cut()
        text += await process.stdout.readexactly(100)
        relay.cut()
        text += await process.stdout.read()
        assert await process.wait() == 0
    assert GO_ON.sub("", text.decode()).rstrip() == chat(shared_dev, "/long 60 0")


async def test_a_message_whose_answer_is_lost_is_sent_once(shared_dev: Dev) -> None:
    there = shared_dev.described()
    async with relay_to(there["url"]) as (relay, url):
        relay.lose_next_answer()
        process = await asyncio.create_subprocess_exec(
            *(CHATD, "chat", "--url", url, "--token", there["member_token"], "/say once"),
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    found = GO_ON.search(out.decode())
    assert found is not None
    assert out.startswith(b"once\n")
    told = chat(shared_dev, "--chat", found[1], "/messages")
    users = [each["content"] for each in json.loads(told) if each["role"] == "user"]
    assert users == ["/say once", "/messages"]
