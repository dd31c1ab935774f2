"""The front door, wired: settings in, one ASGI application out."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware

import chatd
from chatd import telemetry
from chatd.api import chats, errors, health, models, openapi, servers, turns
from chatd.api.answers import REFUSALS
from chatd.api.errors import Failures
from chatd.api.limits import Limits
from chatd.api.parts import Drain, Parts
from chatd.api.requests import Requests
from chatd.api.stream import Streams
from chatd.commands import Commands
from chatd.queue import Wakes
from chatd.settings import Settings
from chatd.store.db import Database
from chatd.store.following import read_versions
from chatd.store.secrets import KeyRing
from chatd.stream.hub import Hub
from chatd.stream.publisher import Publisher

PREFIX = "/api/experimental"
