"""A program that holds a TCP connection to a server that echoes: `talk HOST PORT`.

It sends a number every 50 ms and prints each that comes back, in order and on one and the
same connection, until its standard input ends. What is lost or late ends it.
"""

import select
import socket
import sys
import time

_PAUSE_S, _PATIENCE_S = 0.05, 30.0


def connected(host: str, port: int) -> socket.socket:
    """A connection, as soon as somebody listens there."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return socket.create_connection((host, port), _PATIENCE_S)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)


def main(host: str, port: str) -> None:
    """Talks until nobody listens any more."""
    with connected(host, int(port)) as connection:
        answers = connection.makefile("r", encoding="ascii")
        number = 0
        while not select.select([sys.stdin], [], [], _PAUSE_S)[0]:
            number += 1
            connection.sendall(f"{number}\n".encode())
            answer = answers.readline()
            assert answer == f"{number}\n", f"{answer!r} came instead of {number}"
            print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
