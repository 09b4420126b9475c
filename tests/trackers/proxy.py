"""A way to a server that can break in the middle of a run, and be mended."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal

Mode = Literal["forward", "silent", "500", "closed"]
_ANSWER = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Forwards a port of its own to a server's, or misbehaves.

    ``closed``: nothing answers; ``silent``: it accepts and never answers; ``500``: every request
    is answered with that.
    """

    def __init__(self, target: int, mode: Mode) -> None:
        self._target = target
        self._mode: Mode = "closed"
        self._open: list[socket.socket] = []
        self._listening: socket.socket | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.turn(mode)

    def turn(self, mode: Mode) -> None:
        """Behave otherwise, also towards those who are connected."""
        self._mode = mode
        for connection in self._open:
            _end(connection)
        self._open = []
        if mode == "closed":
            if self._listening is not None:
                _end(self._listening)
                self._listening = None
        elif self._listening is None:
            self._listening = socket.create_server(("127.0.0.1", self.port), backlog=100)
            threading.Thread(target=self._accept, args=[self._listening], daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                self._open.append(client)
                if self._mode == "500":
                    threading.Thread(target=_refuse, args=[client], daemon=True).start()
                elif self._mode == "forward":
                    server = socket.create_connection(("127.0.0.1", self._target))
                    self._open.append(server)
                    for pair in ((client, server), (server, client)):
                        threading.Thread(target=_copy, args=pair, daemon=True).start()


def _refuse(client: socket.socket) -> None:
    with suppress(OSError):
        client.recv(1 << 20)
        client.sendall(_ANSWER)
    _end(client)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    _end(source)
    _end(target)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
