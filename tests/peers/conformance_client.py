"""One scenario of the official conformance suite, driven through a running chatd.

`python -m tests.peers.conformance_client SERVER_URL`: an administrator adds the server, a user
connects it as a browser would, then a tool of it is listed and called. The suite's scenario is in
`MCP_CONFORMANCE_SCENARIO` and `MCP_CONFORMANCE_CONTEXT`, chatd in `CONFORMANCE_CHATD`, tokens of
some administrators in `CONFORMANCE_TOKENS`: each may try but a few servers a minute. The suite
starts all its scenarios at once; those that share a file of `CONFORMANCE_TURNS` take turns,
as many at a time as there are files. Ends with 0 unless chatd itself fails.
"""

import asyncio
import fcntl
import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import httpx2

from tests.peers.browser import follow

BASE = "/api/experimental"
SERVERS = f"{BASE}/mcp/servers"


class Scenario:
    """chatd over HTTP, as its administrator."""

    def __init__(self, server_url: str, context: dict[str, Any]) -> None:
        env = os.environ  # noqa: TID251 - the suite speaks to its client by it
        tokens = env["CONFORMANCE_TOKENS"].split()
        self._name = env["MCP_CONFORMANCE_SCENARIO"]
        self._url = server_url
        self._context = context
        self._chatd = httpx2.Client(
            base_url=env["CONFORMANCE_CHATD"],
            headers={"Authorization": f"Bearer {tokens[crc32(self._name.encode()) % len(tokens)]}"},
            trust_env=False,
            verify=False,
            timeout=60,
        )

    def run(self) -> None:
        server = self._add()
        if server is None:
            return
        if server["auth_type"] == "oauth2" and not self._connect(server["id"]):
            return
        while not self._use(server["id"]) and self._is_asked_to_connect(server["id"]):
            if not self._connect(server["id"]):
                return

    def _add(self) -> dict[str, Any] | None:
        """None: chatd refuses to use this server, and says why."""
        answer = self._post({"auth_type": "oauth2"})
        if "client-credentials" in self._name:
            server = answer.json()
            self._chatd.delete(f"{SERVERS}/{server['id']}").raise_for_status()
            found = {name: server[name] for name in ("oauth2_token_url", "oauth2_issuer")}
            answer = self._post({"auth_type": "client_credentials"} | found | self._client())
        elif answer.status_code == 400 and "client_id" in self._context:
            manual = answer.json()["discovered"] | self._client()
            answer = self._post({"auth_type": "oauth2"} | manual)
        if answer.status_code == 400:
            _tell(answer.text)
            return None
        answer.raise_for_status()
        return answer.json()

    def _post(self, auth: dict[str, Any]) -> httpx2.Response:
        fields = {
            "slug": f"c{uuid4().hex[:12]}",
            "display_name": "Conformance",
            "transport": "streamable_http",
            "availability": "default_off",
            "url": self._url,
            "enabled": True,
        }
        return self._chatd.post(SERVERS, json=fields | auth)

    def _client(self) -> dict[str, str]:
        """What the operator of the authorization server handed out, as an administrator enters
        it."""
        fields = {"oauth2_client_id": self._context["client_id"]}
        if "private_key_pem" in self._context:
            key = self._context["private_key_pem"]
            return fields | {"oauth2_client_secret": key, "oauth2_auth_method": "private_key_jwt"}
        return fields | {"oauth2_client_secret": self._context.get("client_secret", "")}

    def _connect(self, server_id: str) -> bool:
        """False: chatd does not take what came back, and says why; a user would give up here."""
        answer = self._chatd.post(f"{SERVERS}/{server_id}/oauth2/connect", json={})
        answer.raise_for_status()
        page = asyncio.run(follow(answer.json()["connect_url"]))
        _tell(page.status_code, page.url.path)
        return page.is_success

    def _is_asked_to_connect(self, server_id: str) -> bool:
        """For the first time, again, or for more scopes."""
        return self._chatd.get(f"{SERVERS}/{server_id}").json()["connect_url"] is not None

    def _use(self, server_id: str) -> bool:
        """Whether its tools could be listed and one called."""
        tested = self._chatd.post(f"{SERVERS}/{server_id}/test", json={})
        told = tested.json()
        _tell(tested.status_code, json.dumps(told)[:500])
        if not told.get("ok"):
            return False
        done = True
        for tool in told["tools"][:1]:
            path = f"{SERVERS}/{server_id}/tools/{tool}/call"
            called = self._chatd.post(path, json={"arguments": {}})
            _tell(called.status_code, called.text[:500])
            done = called.is_success and not called.json().get("is_error", False)
        return done


def _turn(files: list[Path], name: str) -> None:
    """Waits for it; it is over with this process."""
    held = os.open(files[crc32(name.encode()) % len(files)], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)


def _tell(*said: object) -> None:
    """For who looks at a failure: the suite keeps it."""
    print(*said)  # noqa: T201 - there is no log here


def main() -> None:
    env = os.environ  # noqa: TID251 - the suite speaks to its client by it
    context = json.loads(env.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    turns = sorted(Path(env["CONFORMANCE_TURNS"]).iterdir())
    _turn(turns, env["MCP_CONFORMANCE_SCENARIO"])
    Scenario(sys.argv[-1], context).run()


if __name__ == "__main__":
    main()
