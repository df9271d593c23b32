"""The endpoint of all services: Invoke is answered here, everything else by moto.

moto's development server ends each connection after one answer; this one keeps them, as AWS does, and puts Invoke
before moto's router, which would cost more than running a warm function.
"""

from __future__ import annotations

import io
import json
import sys
import threading
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, cast

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, DechunkedInput, make_server
from werkzeug.wrappers import Response as WsgiResponse

from awslambda_local import web
from awslambda_local.alarms import connect_alarms
from awslambda_local.credentials import EXPIRED, Credentials
from awslambda_local.destinations import Destinations
from awslambda_local.errors import ServiceFailure
from awslambda_local.events import EventQueue
from awslambda_local.imds import InstanceMetadata
from awslambda_local.invoke import InvokeApi, Request, Response, invocation_path
from awslambda_local.options import Options
from awslambda_local.pool import Pool
from awslambda_local.service import LambdaService
from awslambda_local.sources import connect_sources

_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding"}


@dataclass
class LocalServer:
    """The running endpoints; `stop` ends them and every process they started."""

    endpoint_url: str
    imds_endpoint: str
    region: str
    account_id: str
    _resources: ExitStack

    def stop(self) -> None:
        self._resources.close()


def start(options: Options) -> LocalServer:
    """Listen on both ports. moto's state is the process's: one local AWS a process."""
    with ExitStack() as resources:
        endpoint = make_server(options.host, options.port, _moto(), threaded=True, request_handler=_Handler)
        resources.callback(endpoint.server_close)
        endpoint_url = f"http://{options.reachable_host}:{endpoint.server_port}"
        credentials = Credentials(options.credentials_lifetime)
        credentials.watch_sts()
        pool = Pool(credentials, endpoint_url, concurrency=options.concurrency, idle_processes=options.idle_processes)
        resources.callback(pool.close)
        service = LambdaService(pool)
        events = EventQueue(service, Destinations(endpoint_url), options.retry_delays)
        events.start()
        connect_sources(service, events)
        connect_alarms()
        _Handler.invoke_api = InvokeApi(service, events, credentials)
        threading.Thread(target=endpoint.serve_forever, daemon=True, name="endpoint").start()
        imds = InstanceMetadata(
            (options.host, options.imds_port),
            credentials=credentials,
            role=options.instance_role,
            region=options.region,
            account_id=DEFAULT_ACCOUNT_ID,
        )
        imds.start()
        return LocalServer(
            endpoint_url=endpoint_url,
            imds_endpoint=f"http://{options.reachable_host}:{imds.server_port}",
            region=options.region,
            account_id=DEFAULT_ACCOUNT_ID,
            _resources=resources.pop_all(),
        )


def _moto() -> DomainDispatcherApplication:
    return DomainDispatcherApplication(create_backend_app)


class _Handler(web.Handler, MotoRequestHandler):
    """One connection, from one client, for as many requests as it likes."""

    invoke_api: InvokeApi
    server: BaseWSGIServer

    def run_wsgi(self) -> None:
        """Answer one request. werkzeug calls this for every method."""
        body = self._whole_body()
        call = invocation_path(self.command, self.path)
        if call is not None:
            response = self._invoke(Request(call[0], call[1], self.headers, body))
        elif "X-Amz-Target" in self.headers and self.invoke_api.credentials.expired(self._authorization()):
            response = _expired()
        else:
            response = self._moto(body)
        self._send(response)

    def _authorization(self) -> str:
        return self.headers.get("Authorization") or ""

    def _whole_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return cast(bytes, DechunkedInput(cast("IO[bytes]", self.rfile)).read())
        return self.read_body()

    def _invoke(self, request: Request) -> Response:
        try:
            return self.invoke_api.handle(request)
        except Exception as problem:  # a fault of ours is an answer too, and a traceback for whoever runs this
            traceback.print_exc(file=sys.stderr)
            error = ServiceFailure(f"{type(problem).__name__}: {problem}")
            return Response(error.status, [("x-amzn-ErrorType", error.code)], error.body)

    def _moto(self, body: bytes) -> Response:
        environ = self.make_environ()
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        application = cast(Any, self.server.app)
        try:
            answer = WsgiResponse.from_app(application, environ, buffered=True)
        except NotImplementedError as problem:
            return _fault(501, "NotImplemented", f"moto has not got this: {problem}")
        except Exception as problem:  # as above
            traceback.print_exc(file=sys.stderr)
            return _fault(500, "InternalFailure", f"{type(problem).__name__}: {problem}")
        return Response(answer.status_code, list(answer.headers.items()), answer.get_data())

    def _send(self, response: Response) -> None:
        self.send_response_only(response.status)
        length = str(len(response.body))
        for name, value in response.headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
            elif self.command == "HEAD" and name.lower() == "content-length":
                length = value
        if not any(name.lower() == "date" for name, _ in response.headers):
            self.send_header("Date", self.date_time_string())
        bodiless = response.status in {204, 304}
        if not bodiless:
            self.send_header("Content-Length", length)
        self.end_headers()
        if not bodiless and self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()


def _expired() -> Response:
    """What Kinesis and the other JSON services say to expired credentials."""
    return _fault(400, "ExpiredTokenException", EXPIRED)


def _fault(status: int, code: str, message: str) -> Response:
    body = json.dumps({"__type": code, "message": message}).encode()
    return Response(status, [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", code)], body)
