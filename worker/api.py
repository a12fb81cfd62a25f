"""The process `killick api`: reads and changes one model by HTTP, for who bears the token."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import TYPE_CHECKING

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response

from models.errors import ConfigError
from worker import api_documents, api_problems, wiring
from worker.api_auth import Guard
from worker.api_edge import Bounded, Counted
from worker.api_problems import Refused
from worker.api_routes import Here, changes, reads, told
from worker.api_token import check_token
from worker.changes import Disk
from worker.metrics_api import METRICS_MEDIA, ApiMetrics
from worker.serving import run_until_told
from worker.status_report import LogEnds

if TYPE_CHECKING:
    from models.server import Client
    from worker.settings import Settings

MOST_CONNECTIONS = 256
GRACE_S = 10  # that requests have to be answered in, once the process is to end
IDLE_S = 5  # that a connection may stand without a request

log = logging.getLogger(__name__)
pages = APIRouter(tags=["process"])


@pages.get("/healthz", summary="Does it live?", responses=api_documents.HEALTH, openapi_extra=api_documents.OPEN)
async def healthz() -> Response:
    """Whether the process answers at all."""
    return told({"waiting_for": ""})


@pages.get("/readyz", summary="Can it work?", responses=api_documents.HEALTH, openapi_extra=api_documents.OPEN)
def readyz(request: Request) -> Response:
    """Whether Redis answers."""
    served: Here = request.app.state.here
    try:
        with served.about():
            served.registry.partitions()
    except Refused as error:
        return told({"waiting_for": error.problem.detail}, 503)
    return told({"waiting_for": ""})


@pages.get("/metrics", summary="Metrics", responses=api_documents.METRICS, openapi_extra=api_documents.OPEN)
def metrics(request: Request) -> Response:
    """What Prometheus reads."""
    counted: ApiMetrics = request.app.state.metrics
    return Response(counted.page(), headers={"Content-Type": METRICS_MEDIA})


def application(settings: Settings, client: Client) -> FastAPI:
    """The API as an ASGI application.

    Raises:
        ConfigError: there is no token, or one that can't be used.
    """
    token = check_token(settings.api_token())
    made = described(settings)
    made.state.metrics = counted = ApiMetrics(settings.model.name)
    disk = Disk(client, wiring.registry(settings, client))
    made.state.here = Here(settings, client, LogEnds(settings), disk, counted)
    # the last one is the outermost: counted, then who asks, then how much he sends
    made.add_middleware(Bounded)
    made.add_middleware(Guard, token=token, failures=settings.api.failures)
    made.add_middleware(Counted, counts=counted)
    return made


def described(settings: Settings) -> FastAPI:
    """The routes and their document, which nobody is served by yet."""
    made = FastAPI(
        openapi_url="/openapi.json",
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    for router in (reads, changes, pages):
        made.include_router(router)
    api_problems.install(made)
    api_documents.install(made, settings.model.name)
    return made


class ApiService:
    """The API on its port, in the thread that calls `run`."""

    def __init__(self, settings: Settings) -> None:
        """Listen.

        Raises:
            ConfigError: no token, or a port that can't be had.
            ServiceUnreachable: no node of a cluster answered.
        """
        host = settings.http.host
        self._client = wiring.redis_client(settings)
        self.application = application(settings, self._client)
        self._socket = _listening(host, settings.api.port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        if not _is_loopback(host):
            log.warning(
                "the HTTP API listens at %s without TLS: tokens and answers can be read on the way. Put a proxy with "
                'TLS in front (docs/api.md), or set http.host = "127.0.0.1"',
                host,
                extra={"action": "no-tls"},
            )  # fmt: skip
        proxies = list(settings.api.proxies)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.application,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=bool(proxies),
                forwarded_allow_ips=proxies,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._model = settings.model.name

    def run(self) -> None:
        """Answer until asked to stop; what is being answered is finished first."""
        log.info("serving model %s at %s/v1", self._model, self.url, extra={"action": "serving"})
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._client.close()
        log.info("stopped", extra={"action": "stopped"})

    def stop(self) -> None:
        """Ask `run` to finish; from any thread, or a signal."""
        self._server.should_exit = True


def serve(settings: Settings) -> None:
    """Run the API until SIGTERM or SIGINT."""
    run_until_told(ApiService(settings))


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ConfigError: it can't be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"the HTTP API can't listen at {host}:{port} ({error})", "choose another api.port; 0 takes a free one"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
