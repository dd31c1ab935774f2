"""`/docs`: what runs on it, and what it says where that cannot be had."""

import base64
import hashlib
import re

import httpx2


async def test_only_one_release_and_our_own_script_run(anonymous: httpx2.AsyncClient) -> None:
    page = await anonymous.get("/docs")
    policy = dict(
        directive.split(" ", 1) for directive in page.headers["content-security-policy"].split("; ")
    )
    (own,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    (src,) = re.findall(r'<script src="([^"]*)" integrity="sha384-[^"]+" crossorigin>', page.text)
    assert policy["script-src"].split() == [f"'sha256-{digest}'", src]
    assert policy["default-src"] == "'none'"


async def test_where_it_cannot_be_loaded_the_page_says_so(anonymous: httpx2.AsyncClient) -> None:
    page = (await anonymous.get("/docs")).text
    shown = re.search(r'<div id="(\w+)" hidden.*?</div>', page, re.DOTALL)
    assert shown is not None
    assert "could not load Swagger UI" in shown[0]
    assert 'href="openapi.json"' in shown[0]
    assert f'getElementById("{shown[1]}").hidden = false' in page
    assert "<noscript>" in page
