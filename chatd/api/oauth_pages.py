"""Pages that a browser sees on its way to an authorization server and back, as plain HTML.

They need no script, load nothing, stay out of frames, caches and referrers; every value is escaped.
"""

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from starlette.responses import HTMLResponse, RedirectResponse, Response

from chatd.connecting.flows import Asked
from chatd.core.errors import TooMany
from chatd.oauth.urls import parsed

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:10vh auto;padding:0 1rem;
color:#1d1d1f;background:#fff}
h1{font-size:1.4rem}dt{color:#666;margin-top:.8rem}dd{margin:0;overflow-wrap:anywhere}
h1,p{overflow-wrap:anywhere}a{color:#0a5bd3}
button{font:inherit;margin-top:1.6rem;padding:.5rem 1.4rem;border:0;border-radius:.4rem;
background:#0a5bd3;color:#fff;cursor:pointer}
@media (prefers-color-scheme:dark){body{color:#eee;background:#1b1b1d}dt{color:#aaa}
a{color:#8ab8ff}}
"""

_SCRIPT = """
const told = document.body.dataset;
if (window.opener) {
  window.opener.postMessage({type: "mcp-oauth2-complete", serverID: told.server}, told.origin);
  window.close();
}
"""
"""Always the same text, so that its hash is all that the policy allows."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def consent_page(asked: Asked, *, action: str, csrf: str, ticket: str) -> Response:
    """What the user is about to allow, and a form that goes on with it."""
    elsewhere = asked.token_host.lower() != asked.authorization_host.lower()
    rows = [
        ("MCP server", asked.server_name),
        ("Its address", asked.server_host),
        ("Your account here", asked.username),
        ("You will sign in at", asked.authorization_host),
        *([("Access is handed out by", asked.token_host)] if elsewhere else []),
        ("Permissions asked for", ", ".join(asked.scopes) or "its default permissions"),
    ]
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    body = f"""<h1>Connect {escape(asked.server_name)}?</h1>
<p>Tools of this server will be used in your chats with the account you sign in with.</p>
<dl>{listed}</dl>
<form method="post" action="{escape(action)}">
<input type="hidden" name="csrf" value="{escape(csrf)}">
<input type="hidden" name="ticket" value="{escape(ticket)}">
<button>Continue</button>
</form>
<p>If somebody sent you this link, or this is not your account, close this page.</p>"""
    return _page("Connect a server", body, form_to=asked.authorization_url)


def connected_page(server_name: str, server_id: str, origin: str) -> Response:
    """Tells the page that opened this one, and nobody of another origin."""
    data = f' data-server="{escape(server_id)}" data-origin="{escape(origin)}"'
    body = f"""<h1>Connected</h1>
<p>{escape(server_name)} is connected. You can close this window.</p>
<script>{_SCRIPT}</script>"""
    return _page("Connected", body, data=data, script=True)


def trouble_page(
    status: int, title: str, message: str, *, back: str = "", link: str = "Go back"
) -> Response:
    """Why it did not work, in our own words."""
    shown = f'<p><a href="{escape(back)}">{escape(link)}</a></p>' if back else ""
    body = f"<h1>{escape(title)}</h1><p>{escape(message)}</p>{shown}"
    return _page(title, body, status=status)


def busy_page(error: TooMany) -> Response:
    """With the time after which it may be tried again."""
    message = "Too many requests came from your network. Try again in a minute."
    page = trouble_page(error.status, "Too many requests", message)
    page.headers.update(error.headers)
    return page


def away(url: str) -> Response:
    """On to another page, which learns nothing of this one."""
    return RedirectResponse(url, 303, headers=_HEADERS)


def _page(
    title: str,
    body: str,
    *,
    status: int = 200,
    data: str = "",
    script: bool = False,
    form_to: str = "",
) -> Response:
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>
<body{data}><main>{body}</main></body></html>"""
    policy = [
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        *([f"script-src {_hash(_SCRIPT)}"] if script else []),
        f"form-action {' '.join(_form_targets(form_to))}",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    headers = _HEADERS | {"Content-Security-Policy": "; ".join(policy)}
    return HTMLResponse(text, status, headers)


def _form_targets(url: str) -> Sequence[str]:
    """Browsers hold a form's redirects to this as well, and a sign-in may lead through several
    hosts."""
    if not url:
        return ("'none'",)
    target = parsed(url)
    if target is None or target.scheme == "https":
        return ("'self'", "https:")
    return ("'self'", "https:", f"http://{target.netloc.decode()}")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
