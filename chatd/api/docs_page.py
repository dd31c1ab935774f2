"""`/docs`: the API explained, to be tried out.

A script of another site runs on it, on the origin where browsers are signed in: of one release and
these very bytes, or not at all. `npm pack swagger-ui-dist`, then `openssl dgst -sha384 -binary |
base64`, tells those of another one.
"""

import base64
import hashlib

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_FROM = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.32.0/"
_JS_HASH = "sha384-7xcoc6ZKDFF7Ek627QTC3Bg/K+5Y36NJ8MWAE43D2m6+3Sh9XO3tdsfHhrS8gNIQ"
_CSS_HASH = "sha384-3nuX7df3EaAoiqLBeyS1Ola0Gpg9ryJKVtarubwfnA1cOH8AWHUdbPSIvEqPZ9VH"

_SCRIPT = """
if (window.SwaggerUIBundle) {
  SwaggerUIBundle({
    url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, layout: "BaseLayout",
    presets: [SwaggerUIBundle.presets.apis],
  });
} else {
  document.getElementById("unreachable").hidden = false;
}
"""

_MANUALLY = 'What it would show is in <a href="openapi.json">openapi.json</a>.'

_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>chatd API</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="{_FROM}swagger-ui.css" integrity="{_CSS_HASH}" crossorigin></head>
<body><div id="swagger-ui"></div>
<div id="unreachable" hidden style="font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:10vh
 auto;padding:0 1rem"><h1 style="font-size:1.4rem">The API reference is not shown</h1>
<p>Your browser could not load Swagger UI from cdn.jsdelivr.net, or not the release that is expected
 from there. {_MANUALLY}</p></div>
<noscript><p>This page needs JavaScript. {_MANUALLY}</p></noscript>
<script src="{_FROM}swagger-ui-bundle.js" integrity="{_JS_HASH}" crossorigin></script>
<script>{_SCRIPT}</script></body></html>"""

_OURS = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src 'sha256-{_OURS}' {_FROM}swagger-ui-bundle.js",
            f"style-src 'unsafe-inline' {_FROM}swagger-ui.css",
            "img-src 'self' data:",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


async def show(_: Request) -> Response:
    return HTMLResponse(_PAGE, headers=_HEADERS)
