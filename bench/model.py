"""The harness's model, which calls a server's tool rather than one of our own.

It calls the first tool that it is offered, and chatd offers its built-in tools first: the cells
with tools would measure those. A server's tool has a name as `slug__tool`; where no name is like
that, as with the other systems, the first one stays the first.

`python -m bench.model --port 9100`, in the harness's environment.
"""

import argparse
from types import SimpleNamespace
from typing import Any

import orjson
import uvloop

from bench import shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9100)
    options = parser.parse_args()
    model = shared.load("fake_llm")
    model.orjson = SimpleNamespace(dumps=orjson.dumps, loads=_servers_first)
    uvloop.run(model.main(options.port))


def _servers_first(body: bytes) -> Any:
    request = orjson.loads(body)
    if request.get("tools"):
        request["tools"].sort(key=_is_ours)
    return request


def _is_ours(tool: dict[str, Any]) -> bool:
    return "__" not in (tool.get("function") or tool).get("name", "")


if __name__ == "__main__":
    main()
