"""A server's form, filled in field by field."""

from typing import Any

import pytest

from chatd.cli.chat.asking import Asking
from chatd.cli.chat.conversation import Refused
from chatd.cli.chat.forms import Ended, fill
from tests.cli.test_telling import Page


def form(*required: str, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


COLOURS = {"type": "string", "oneOf": [{"const": "r", "title": "Red"}, {"const": "g"}]}
SIZES = {"type": "array", "items": {"type": "string", "enum": ["S", "M", "L"]}, "minItems": 2}


@pytest.mark.parametrize(
    ("field", "bad", "why"),
    [
        pytest.param({"type": "string"}, "", "This is needed.", id="nothing"),
        pytest.param({"type": "string", "minLength": 3}, "ab", "too short", id="short"),
        pytest.param({"type": "integer"}, "1.5", "whole number", id="no integer"),
        pytest.param({"type": "integer", "maximum": 9}, "10", "maximum", id="too large"),
        pytest.param({"type": "number"}, "nan", "takes a number", id="no number"),
        pytest.param({"type": "boolean"}, "perhaps", "y or n", id="no boolean"),
        pytest.param(COLOURS, "3", "1 to 2", id="no choice"),
        pytest.param(SIZES, "S", "too short", id="too few"),
        pytest.param(SIZES, "S,XL", "1 to 3", id="one is no choice"),
    ],
)
def test_what_does_not_fit_is_asked_again(field: dict[str, Any], bad: str, why: str) -> None:
    page = Page(bad)
    with pytest.raises(Ended, match="cancel"):
        fill(page, form("it", it=field))
    assert why in page.written
    assert page.written.count("  it") == 2


@pytest.mark.parametrize(
    ("field", "typed", "value"),
    [
        ({"type": "string"}, " Ada ", "Ada"),
        ({"type": "integer"}, "7", 7),
        ({"type": "number"}, "0.5", 0.5),
        ({"type": "boolean"}, "Yes", True),
        ({"type": "boolean"}, "n", False),
        (COLOURS, "1", "r"),
        (COLOURS, "Red", "r"),
        (COLOURS, "g", "g"),
        (SIZES, "S, 3", ["S", "L"]),
        ({"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]}, "B", "b"),
        ({"type": "integer", "default": 5}, "", 5),
    ],
)
def test_an_answer_has_its_fields_type(field: dict[str, Any], typed: str, value: Any) -> None:
    content = fill(Page(typed), form("it", it=field))
    assert content == {"it": value}
    assert type(content["it"]) is type(value)


def test_an_optional_field_may_be_left_out() -> None:
    assert fill(Page("", "x"), form(a={"type": "string"}, b={"type": "string"})) == {"b": "x"}


@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_a_form_can_be_left_at_any_field(action: str) -> None:
    with pytest.raises(Ended, match=action):
        fill(Page("x", f"!{action}"), form("a", "b", a={"type": "string"}, b={"type": "string"}))


class Server:
    """Keeps the answers; refuses approvals when told so."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.decisions: list[tuple[str, str, str]] = []
        self.skipped: list[str] = []
        self.refuses = refuses

    def approve(self, item_id: str, decision: str, reason: str = "") -> None:
        self.decisions.append((item_id, decision, reason))
        if self.refuses:
            raise Refused("Policy no longer allows this call.", answered=409)

    def fill_in(self, item_id: str, action: str, content: dict[str, Any] | None = None) -> None:
        raise AssertionError

    def connect_url(self, server_id: str) -> str:
        return f"https://chatd.example/{server_id}?ticket=once"

    def skip_account(self, item_id: str) -> None:
        self.skipped.append(item_id)

    def give_results(self, results: list[dict[str, Any]]) -> None:
        raise AssertionError


def approval(args: str = "{}") -> dict[str, Any]:
    named = {"tool_name": "demo__append", "original_name": "append", "server": "demo"}
    return {"id": "1", "kind": "approval", "tool_call_id": "c", "args": args, **named}


def test_a_decision_that_is_not_taken_is_not_tried_for_ever() -> None:
    page, server = Page(), Server(refuses=True)
    asking = Asking(page, server, person=False, approve="all")
    assert asking.answer([approval()])
    assert "Policy no longer allows this call." in page.written
    assert not asking.answer([approval()])
    assert len(server.decisions) == 1


def test_long_arguments_are_cut_and_shown_in_full_when_asked_for() -> None:
    page, server = Page("?", "no idea"), Server()
    args = '{"lines":[' + ",".join(map(str, range(100))) + "]}"
    assert Asking(page, server, person=True).answer([approval(args)])
    cut, whole = page.written.split("? shows all")
    assert "│     99" not in cut
    assert "104 lines" in cut
    assert "│     99" in whole
    assert server.decisions == [("1", "deny", "no idea")]


def test_a_sub_agents_work_is_nobodys_to_answer() -> None:
    child = {"id": "2", "kind": "child", "child_chat_id": "3"}
    assert Asking(Page(), Server(), person=False).answer([child])


ACCOUNT = {
    "id": "4",
    "kind": "auth",
    "tool_call_id": "",
    "server_id": "s1",
    "display_name": "Notion",
    "message": "Connect your account to use this server.",
    "connect_url": "/connect",
}


@pytest.mark.parametrize(("said", "skipped"), [("", []), ("y", []), ("s", ["4"]), ("no", ["4"])])
def test_who_has_to_connect_gets_a_link_of_their_own_or_goes_on_without(
    said: str, skipped: list[str]
) -> None:
    page, server = Page(said), Server()
    assert Asking(page, server, person=True).answer([ACCOUNT])
    assert "Notion: Connect your account" in page.written
    assert "https://chatd.example/s1?ticket=once" in page.written
    assert server.skipped == skipped


def test_who_only_has_to_sign_in_gets_no_link() -> None:
    page = Page("")
    assert Asking(page, Server(), person=True).answer([ACCOUNT | {"connect_url": None}])
    assert "https://" not in page.written


def test_without_a_person_an_account_is_left_waiting_and_told() -> None:
    page = Page()
    asking = Asking(page, Server(), person=False)
    assert not asking.answer([ACCOUNT])
    asking.tell([ACCOUNT])
    assert "auth 4: Connect your account to use this server. /connect" in page.written
