"""chatd as a system of the shared harness (`BENCH_ADAPTER`): one POST a turn, answered as a stream.

Runs in the harness's own environment: standard library and the harness's modules only.
"""

import json
import os
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Spec = dict[str, Any]
Json = dict[str, Any]

HERE = Path(__file__).resolve().parent
RUN = Path(os.environ.get("BENCH_VENVS", HERE / ".venvs")) / "run"  # noqa: TID251
PYTHON = os.environ.get("BENCH_PYTHON", str(HERE.parent / ".venv/bin/python"))  # noqa: TID251
API = "/api/experimental"
MODEL_PORT = 9100
SERVERS = 8
MODELS = (
    "bench-ttft0-tok50-gap0-tools0",
    "bench-ttft0-tok50-gap0-tools1",
    "bench-ttft0-tok50-gap0-tools2",
    "bench-ttft100-tok50-gap20-tools0",
)


def system(*options: str) -> Callable[[int, int], Spec]:
    """How the harness starts one chatd, and makes it ready once it answers."""

    def spec(port: int, tool_port: int) -> Spec:
        data = RUN / f"chatd-{port}"

        def after(port: int) -> Spec:
            return {"headers": configure(port, data, tool_port)}

        argv = [PYTHON, "-m", "bench.serve", "--port", str(port), "--data", str(data), *options]
        return {
            "argv": argv,
            "cwd": str(HERE.parent),
            "ready": "/readyz",
            "ask": "chatd",
            "after": after,
        }

    return spec


class Api:
    """What the benchmark configures and asks, over the public routes."""

    def __init__(self, port: int, token: str) -> None:
        self._url = f"http://127.0.0.1:{port}{API}"
        self.token = token

    def post(self, path: str, body: Json) -> Json:
        request = urllib.request.Request(
            self._url + path,
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


CONFIGS: dict[str, str] = {}
"""Model config ids by model name."""
SERVER_IDS: list[str] = []


def configure(
    port: int, data: Path, tool_port: int, *, model_port: int = MODEL_PORT, servers: int = SERVERS
) -> bytes:
    """Add the model, its configs and the MCP servers. The header that signs a request."""
    token = json.loads((data / "bench.json").read_text())["token"]
    api = Api(port, token)
    provider = api.post(
        "/chats/providers",
        {"provider": "openai-compat", "base_url": f"http://127.0.0.1:{model_port}/v1"},
    )
    for model in MODELS:
        config = {"provider_id": provider["id"], "model": model, "context_limit": 128_000}
        CONFIGS[model] = api.post("/chats/model-configs", config)["id"]
    SERVER_IDS[:] = [
        api.post("/mcp/servers", _server(number, tool_port))["id"]
        for number in range(1, servers + 1)
    ]
    return f"authorization: Bearer {token}\r\n".encode()


def _server(number: int, tool_port: int) -> Json:
    return {
        "display_name": f"s{number}",
        "slug": f"s{number}",
        "transport": "streamable_http",
        "url": f"http://127.0.0.1:{tool_port}/s{number}/mcp",
        "auth_type": "none",
        "availability": "default_off",
        "enabled": True,
    }


def new_chat(model: str, messages: Sequence[Mapping[str, str]], servers: int) -> Json:
    """The body of a new chat; of several messages only the last is asked."""
    return {
        "content": [{"type": "text", "text": messages[-1]["content"]}],
        "model_config_id": CONFIGS[model],
        "mcp_server_ids": SERVER_IDS[:servers],
    }


async def ask(
    client: Any,
    model: str,
    messages: Sequence[Mapping[str, str]],
    servers: int,
    _config: Any,
    headers: bytes,
    sink: Callable[[bytes], None],
) -> int:
    """The harness counts 200 as success; a new chat is a 201."""
    body = json.dumps(new_chat(model, messages, servers)).encode()
    status, _, _ = await client.call("POST", f"{API}/chats", body, headers, sink=sink)
    return 200 if status == 201 else status


PEERS = {
    "chatd": system(),
    "chatd-2w": system("--workers", "2"),
}
ASK = {"chatd": ask}
