"""Everything that is served, and in which order paths are tried."""

from fastapi import FastAPI

from chatd.api import (
    audit,
    chats,
    config,
    creating,
    explain,
    files,
    groups,
    health,
    health_report,
    history,
    icons,
    items,
    login,
    models,
    new_servers,
    oauth,
    oauth_browser,
    operating,
    own_tokens,
    pins,
    plans,
    queue,
    servers,
    titles,
    tools,
    turns,
    usage,
    users,
    watch,
    websocket,
)
from chatd.api.answers import REFUSALS


def add(app: FastAPI, prefix: str) -> None:
    # What is asked for most comes first, and fixed paths such as /chats/models before
    # /chats/{chat}.
    for part in (
        creating,
        turns,
        queue,
        history,
        items,
        plans,
        tools,
        models,
        files,
        config,
        operating,
        watch,
        chats,
        titles,
        audit,
        servers,
        pins,
        explain,
        icons,
        oauth,
        new_servers,
        usage,
        own_tokens,
        login,
        users,
        groups,
        health_report,
    ):
        app.include_router(part.router, prefix=prefix, responses=REFUSALS)
    app.include_router(oauth.public, prefix=prefix)
    app.include_router(oauth_browser.router, prefix=prefix)
    app.include_router(login.pages, prefix=prefix)
    app.include_router(websocket.router, prefix=prefix)
    app.include_router(health.router)
