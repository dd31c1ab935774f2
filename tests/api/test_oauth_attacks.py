"""What somebody may try with a connection that is not theirs: refused, and nothing is connected."""

from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse

from chatd.store import sessions
from chatd.store.db import Database
from chatd.store.user_links import add_link
from tests.api.browsing import ORIGIN, Browser, ask_to_connect, browsing, fields, query, sign_in
from tests.api.conftest import Person, enter
from tests.api.issuer import SECRET_WORD, Issuer, serving_issuer
from tests.api.test_oauth_discovery import add


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
async def server(admin: Person, issuer: Issuer) -> Any:
    return await add(admin, issuer)


@pytest.fixture
async def browser(app: FastAPI) -> AsyncGenerator[Browser]:
    async with browsing(app) as browser:
        yield browser


@pytest.fixture
async def stranger(app: FastAPI) -> AsyncGenerator[Browser]:
    async with browsing(app) as browser:
        yield browser


@pytest.fixture
async def link(member: Person, server: Any) -> str:
    return await ask_to_connect(member, server["id"])


REFUSED = (400, 403, 410)


async def nobody_connected(db: Database) -> bool:
    return await db.fetch("SELECT 1 FROM oauth_tokens") == []


async def age(db: Database, by: timedelta) -> None:
    await db.fetch("UPDATE oauth_states SET expires_at = expires_at - $1::interval", by)


async def test_a_ticket_that_another_browser_has_opened_is_refused(
    link: str, browser: Browser, stranger: Browser
) -> None:
    page = await browser.open(link)
    assert (await stranger.open(link)).status_code == 410
    assert (await browser.agree(page)).status_code == 303


async def test_a_ticket_is_gone_once_it_was_used(link: str, browser: Browser) -> None:
    page = await browser.open(link)
    assert (await browser.agree(page)).status_code == 303
    assert (await browser.open(link)).status_code == 410
    assert (await browser.agree(page)).status_code == 403


async def test_a_ticket_that_is_too_old_is_refused(
    link: str, browser: Browser, db: Database
) -> None:
    await age(db, timedelta(minutes=10))
    assert (await browser.open(link)).status_code == 410


async def test_a_consent_page_that_was_open_too_long_is_refused(
    link: str, browser: Browser, db: Database
) -> None:
    page = await browser.open(link)
    await age(db, timedelta(minutes=10))
    assert (await browser.agree(page)).status_code == 410


async def test_going_on_needs_the_pages_own_token(link: str, browser: Browser) -> None:
    page = await browser.open(link)
    for csrf in ("", "0" * 64, "ä"):
        assert (await browser.agree(page, csrf=csrf)).status_code == 403
    assert (await browser.agree(page)).status_code == 303


async def test_going_on_needs_the_pages_own_browser(
    link: str, browser: Browser, stranger: Browser
) -> None:
    page = await browser.open(link)
    assert (await stranger.agree(page)).status_code == 403


async def test_a_form_of_another_site_is_refused(link: str, browser: Browser) -> None:
    page = await browser.open(link)
    browser.http.headers["sec-fetch-site"] = "cross-site"
    assert (await browser.agree(page)).status_code == 403


async def test_a_stolen_state_is_no_use_in_another_browser(
    link: str, browser: Browser, stranger: Browser, db: Database
) -> None:
    back = await sign_in(await browser.leave(link))
    page = await stranger.open(back)
    assert (page.status_code, await nobody_connected(db)) == (400, True)
    # And the one whose it is has lost nothing.
    assert (await browser.open(back)).status_code == 200


async def test_a_cookie_of_another_flow_is_none(
    member: Person, server: Any, link: str, browser: Browser, stranger: Browser, db: Database
) -> None:
    back = await sign_in(await browser.leave(link))
    await stranger.leave(await ask_to_connect(member, server["id"]))
    assert (await stranger.open(back)).status_code == 400
    assert await nobody_connected(db)


async def test_an_answer_counts_once(link: str, browser: Browser, issuer: Issuer) -> None:
    back = await sign_in(await browser.leave(link))
    assert (await browser.open(back)).status_code == 200
    assert (await browser.open(back)).status_code == 400
    assert len(issuer.forms("/token")) == 1


async def test_a_code_of_another_flow_is_refused_by_its_verifier(
    member: Person, server: Any, browser: Browser, stranger: Browser, db: Database
) -> None:
    """Code injection: the attacker's code in the victim's answer."""
    mine = query(await sign_in(await stranger.leave(await ask_to_connect(member, server["id"]))))
    away = query(await browser.leave(await ask_to_connect(member, server["id"])))
    back = f"{away['redirect_uri']}?code={mine['code']}&state={away['state']}"
    assert (await browser.open(back)).status_code == 502
    assert await nobody_connected(db)


async def test_an_answer_that_is_too_late_is_refused(
    link: str, browser: Browser, db: Database, issuer: Issuer
) -> None:
    back = await sign_in(await browser.leave(link))
    await age(db, timedelta(minutes=10))
    assert (await browser.open(back)).status_code == 400
    assert issuer.forms("/token") == []


async def test_an_answer_at_another_servers_callback_is_refused(
    admin: Person, issuer: Issuer, server: Any, link: str, browser: Browser, db: Database
) -> None:
    other = await add(admin, issuer, slug="other")
    back = await sign_in(await browser.leave(link))
    moved = back.replace(server["id"], other["id"])
    for name in list(browser.http.cookies.keys()):
        browser.http.cookies.set(name, browser.http.cookies[name], domain="127.0.0.1", path="/")
    assert (await browser.open(moved)).status_code == 400
    assert (await nobody_connected(db), issuer.forms("/token")) == (True, [])


async def test_an_answer_of_another_issuer_is_refused_before_anything_of_it_is_shown(
    member: Person, server: Any, browser: Browser, issuer: Issuer
) -> None:
    url = issuer.url
    for iss in ("https://evil.example", url, f"{url}//", f"{url.upper()}/", ""):
        away = query(await browser.leave(await ask_to_connect(member, server["id"])))
        back = f"{away['redirect_uri']}?error=evil_error&state={away['state']}&iss={iss}"
        page = await browser.open(back)
        assert (page.status_code, "another authorization server" in page.text) == (400, True)
        assert "evil" not in page.text


async def test_the_right_issuer_is_let_through(link: str, browser: Browser, issuer: Issuer) -> None:
    issuer.provider.iss = f"{issuer.url}/"
    assert (await browser.connect(link)).status_code == 200


async def test_an_issuer_that_always_names_itself_must_do_so(
    admin: Person, member: Person, server: Any, browser: Browser, issuer: Issuer, db: Database
) -> None:
    await db.fetch("UPDATE mcp_server_configs SET oauth2_sends_issuer = true")
    page = await browser.connect(await ask_to_connect(member, server["id"]))
    assert (page.status_code, issuer.forms("/token")) == (400, [])


async def test_no_parameter_of_an_answer_may_come_twice(
    link: str, browser: Browser, db: Database
) -> None:
    back = await sign_in(await browser.leave(link))
    assert (await browser.open(f"{back}&code=another")).status_code == 400
    assert await nobody_connected(db)


async def test_a_browser_that_is_signed_in_as_somebody_else_is_refused(
    app: FastAPI, link: str, browser: Browser, db: Database
) -> None:
    eve = await enter(app, db, "eve", "member")
    async with db.transaction() as session:
        made = await sessions.create_session(session, eve.user.id, seconds=600)
    await eve.http.aclose()
    browser.hold(made)
    assert (await browser.open(link)).status_code == 403
    browser.http.cookies.clear()
    back = await sign_in(await browser.leave(link))
    browser.hold(made)
    assert (await browser.open(back)).status_code == 403
    assert await nobody_connected(db)


async def test_a_browser_that_is_signed_in_needs_no_ticket(
    member: Person, server: Any, browser: Browser, db: Database
) -> None:
    async with db.transaction() as session:
        made = await sessions.create_session(session, member.user.id, seconds=600)
    browser.hold(made)
    start = f"{ORIGIN}/api/experimental/mcp/servers/{server['id']}/oauth2/connect?return_to=/done"
    answer = await browser.open(start)
    assert answer.status_code == 303
    done = await browser.connect(answer.headers["location"])
    assert done.headers["location"] == f"{ORIGIN}/done"


@pytest.mark.parametrize("moment", ["before consent", "before the callback", "at the token"])
@pytest.mark.parametrize("change", ["disabled", "suspended"])
async def test_who_is_locked_out_meanwhile_is_not_connected(
    admin: Person,
    member: Person,
    server: Any,
    link: str,
    browser: Browser,
    issuer: Issuer,
    db: Database,
    moment: str,
    change: str,
) -> None:
    async def lock_out() -> None:
        if change == "disabled":
            answer = await admin.patch(f"/mcp/servers/{server['id']}", {"enabled": False})
        else:
            answer = await admin.patch(f"/users/{member.user.id}", {"suspended": True})
        assert answer.status_code == 200

    if moment == "before consent":
        await lock_out()
        assert (await browser.open(link)).status_code in REFUSED
        return
    back = await sign_in(await browser.leave(link))
    if moment == "before the callback":
        await lock_out()
    else:
        issuer.before_token = lock_out
    page = await browser.open(back)
    assert (page.status_code in REFUSED, await nobody_connected(db)) == (True, True)
    assert issuer.provider.refreshing == {}  # what was granted is given back


@pytest.mark.parametrize(("subject", "status"), [("max-there", 200), ("somebody-else", 403)])
async def test_who_is_known_there_connects_no_other_account(
    member: Person,
    link: str,
    browser: Browser,
    issuer: Issuer,
    db: Database,
    subject: str,
    status: int,
) -> None:
    async with db.transaction() as session:
        name = f"{issuer.url}/"
        await add_link(session, member.user.id, issuer=name, subject="max-there", claims={})
    claims = urlsafe_b64encode(f'{{"sub": "{subject}"}}'.encode()).decode().rstrip("=")
    granted = {"access_token": "a", "token_type": "Bearer", "id_token": f"e30.{claims}.x"}
    issuer.replies["/token"] = lambda: JSONResponse(granted)
    page = await browser.connect(link)
    assert (page.status_code, await nobody_connected(db)) == (status, status == 403)


async def test_a_configuration_that_changed_meanwhile_starts_again(
    admin: Person, server: Any, link: str, browser: Browser, issuer: Issuer, db: Database
) -> None:
    back = await sign_in(await browser.leave(link))
    await admin.post(f"/mcp/servers/{server['id']}/oauth2/discover", {"register_client": True})
    assert (await browser.open(back)).status_code == 409
    assert (await nobody_connected(db), issuer.forms("/token")) == (True, [])


@pytest.mark.parametrize("moment", ["on the consent page", "before the callback", "at the token"])
async def test_what_was_begun_for_a_server_that_has_moved_is_over(
    admin: Person,
    server: Any,
    link: str,
    browser: Browser,
    issuer: Issuer,
    db: Database,
    moment: str,
) -> None:
    """By hand, with the same client: the user has agreed to where it was, and to nowhere else."""
    await db.fetch("UPDATE mcp_server_configs SET discovered_at = NULL")

    async def move() -> None:
        elsewhere = {"url": issuer.mcp_url.replace("127.0.0.1", "localhost")}
        answer = await admin.patch(f"/mcp/servers/{server['id']}", elsewhere)
        assert answer.status_code == 200, answer.text

    consent = await browser.open(link)
    if moment == "on the consent page":
        await move()
        assert (await browser.agree(consent)).status_code == 410
        return
    back = await sign_in((await browser.agree(consent)).headers["location"])
    if moment == "before the callback":
        await move()
    else:
        issuer.before_token = move
    page = await browser.open(back)
    assert (page.status_code in REFUSED, await nobody_connected(db)) == (True, True)
    assert issuer.provider.refreshing == {}  # what was granted is given back


OFF_THE_SITE = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example/",
    "/x\\..\\evil",
    "javascript:alert(1)",
    "/a\nb",
    "x",
    "/\t/evil.example",
    "/" + "x" * 2048,
)


async def test_a_way_back_that_leads_off_the_site_is_refused(member: Person, server: Any) -> None:
    path = f"/mcp/servers/{server['id']}/oauth2/connect"
    for return_to in OFF_THE_SITE:
        assert (await member.post(path, {"return_to": return_to})).status_code == 400, return_to


async def test_no_address_holds_what_is_worth_stealing(
    member: Person, server: Any, issuer: Issuer, browser: Browser, db: Database
) -> None:
    link = await ask_to_connect(member, server["id"], return_to="/done")
    page = await browser.open(link)
    away = await browser.agree(page)
    back = await sign_in(away.headers["location"])
    done = await browser.open(back)
    (form,) = issuer.forms("/token")
    tokens = [*issuer.provider.access, *issuer.provider.refreshing, form["code_verifier"]]
    for token in tokens:
        for url in (link, away.headers["location"], back, done.headers["location"]):
            assert token not in url
    assert SECRET_WORD not in done.headers["location"]
    assert fields(page)["ticket"] not in away.headers["location"]
    assert query(away.headers["location"]).keys() >= {"state", "code_challenge"}
    for row in await db.fetch("SELECT o::text AS kept FROM oauth_states o"):
        assert form["code_verifier"] not in row["kept"]


async def test_another_redirect_uri_is_none_that_was_registered(
    link: str, browser: Browser, server: Any, issuer: Issuer
) -> None:
    (registered,) = issuer.provider.clients.values()
    away = query(await browser.leave(link))
    assert [str(uri) for uri in registered.redirect_uris or ()] == [away["redirect_uri"]]


async def test_a_servers_name_is_no_markup(
    admin: Person, member: Person, issuer: Issuer, browser: Browser
) -> None:
    evil = await add(admin, issuer, display_name="<script>alert(1)</script>\"'")
    link = await ask_to_connect(member, evil["id"])
    assert "<script>" not in (await browser.open(link)).text
    assert "<script>alert" not in (await browser.connect(link)).text


async def test_no_log_line_holds_a_secret(
    link: str, browser: Browser, issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    page = await browser.open(link)
    away = (await browser.agree(page)).headers["location"]
    await browser.open(await sign_in(away))
    told = capsys.readouterr()
    for secret in (SECRET_WORD, fields(page)["ticket"], query(away)["state"]):
        assert secret not in told.out + told.err
