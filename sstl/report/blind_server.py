"""The local web server of a blind comparison: one page, its pictures, and the votes, for this machine alone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from sstl.errors import InputError, SstlError
from sstl.report.blind import CHOICES, Ballot, png
from sstl.report.page import script_hash

_Answer = tuple[HTTPStatus, str, bytes]  # with the type of the content
_LARGEST_BODY = 200  # bytes; a vote has some 40
_PICTURE = re.compile(r"/pictures/(\d{1,6})/(left|right|photo)", re.ASCII)
_TEXT = "text/plain; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other page may show the pictures
    "Referrer-Policy": "no-referrer",
}


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class BlindServer(ThreadingHTTPServer):
    """Serves a ballot on 127.0.0.1.

    Pictures are addressed by their number in the random order and their side, never by a path or a name, and are
    encoded anew: nothing but pixels of the trials' images can be had. Only pages of this server itself may vote: the
    Host header must be this server's (against DNS rebinding), a vote's Origin too, and its type JSON.

    Args:
        ballot: what is voted on.
        port: 0 for any free one.

    Raises:
        SstlError: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, ballot: Ballot, port: int = 0) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise SstlError(f"port {port} of 127.0.0.1 cannot be used ({error}); give another one by --port.") from None
        self.ballot = ballot
        self.page = (files("sstl.report") / "blind.html").read_text(encoding="utf-8")
        port = self.server_port
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        if port == 80:  # which browsers leave out
            self.hosts |= {"127.0.0.1", "localhost"}

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Say in a line what went wrong in answering; a browser that went away is no error."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"sstl: error: the answer to {client_address[0]} failed: {error!r}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: BlindServer
    server_version, sys_version = "sstl", ""
    timeout = 20  # seconds for which a silent connection keeps its thread

    def do_GET(self) -> None:
        """Give the page, its state, a picture or the result."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Take a vote, or take one back."""
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""

    def _answer(self, answer: Callable[[], _Answer]) -> None:
        try:
            if set(self.headers.get_all("Host", [])) not in [{host} for host in self.server.hosts]:
                raise _Refused(HTTPStatus.FORBIDDEN, f"open {self.server.address}")
            status, kind, body = answer()
        except _Refused as refused:
            status, kind, body = refused.status, _TEXT, str(refused).encode()
        except (InputError, OSError) as error:
            status, kind, body = HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, _without_folders(error).encode()
        self.send_response(status)
        for name, value in (_HEADERS | {"Content-Type": kind}).items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", _policy(self.server.page))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _get(self) -> _Answer:
        ballot = self.server.ballot
        if self.path == "/":
            return HTTPStatus.OK, "text/html; charset=utf-8", self.server.page.encode()
        if self.path == "/state":
            return _json(ballot.state())
        if self.path == "/result":
            if ballot.position is not None:
                raise _Refused(HTTPStatus.CONFLICT, "the result is shown when all photos are voted on")
            return _json(ballot.result())
        if match := _PICTURE.fullmatch(self.path):
            number, place = int(match[1]), match[2]
            path = ballot.trials[number].picture(place) if number < len(ballot.trials) else None
            if path is not None:
                return HTTPStatus.OK, "image/png", png(path)
        raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self) -> _Answer:
        origins = [f"http://{host}" for host in self.server.hosts]
        if self.headers.get("Origin") not in origins:
            raise _Refused(HTTPStatus.FORBIDDEN, "only the page of this server may vote")
        body = self._body()
        number = body.get("number")
        if not (number is None or type(number) is int):
            raise _Refused(HTTPStatus.BAD_REQUEST, "the number must be a whole number")
        if self.path == "/vote" and body.keys() == {"number", "choice"} and body["choice"] in CHOICES:
            done = self.server.ballot.vote(number, body["choice"])
        elif self.path == "/undo" and body.keys() == {"number"}:
            done = self.server.ballot.undo(number)
        else:
            raise _Refused(HTTPStatus.BAD_REQUEST, "neither a vote nor an undo")
        # If it was of another photo than the current one, the page learns which one that is.
        return _json(self.server.ballot.state(), HTTPStatus.OK if done else HTTPStatus.CONFLICT)

    def _body(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a vote is JSON")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length, re.ASCII):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "a vote tells its length")
        if int(length) > _LARGEST_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a vote is short")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "a vote is a JSON object")
        return body


def _json(tree: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> _Answer:
    return status, "application/json", json.dumps(tree).encode()


def _policy(page: str) -> str:
    return (
        "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script_hash(page)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _without_folders(error: Exception) -> str:
    """Say what failed without the folder's name, which would tell which restoration it is."""
    if isinstance(error, OSError):
        return f"the vote or the picture could not be written or read: {error.strerror}"
    return "the picture can no longer be read"
