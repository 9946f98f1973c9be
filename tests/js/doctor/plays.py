"""A process that plays a part for the doctor to find out: python3 plays.py PART [NUMBER]."""

import os
import select
import socket
import sys
import tempfile
import time

part = sys.argv[1]
number = int(sys.argv[2]) if len(sys.argv) > 2 else 0
held = []


def say(text):
    print(text, flush=True)


def listening(backlog=1024, port=0):
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    listener.listen(backlog)
    say(f"port {listener.getsockname()[1]}")
    return listener


def wait_for_the_end():
    say("ready")
    while True:
        time.sleep(1000)


def never_accepts():
    held.append(listening(number))


def keeps():
    """Takes so many, answers each once, and keeps them, whoever leaves."""
    listener = listening()
    for _ in range(number):
        client = listener.accept()[0]
        client.recv(1000)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n")
        held.append(client)


def fresh():
    held.extend(socket.socket() for _ in range(number))


def deleted():
    held.extend(tempfile.TemporaryFile() for _ in range(number))
    # Where the system makes them without a name, they never had one to lose.
    for n in range(number):
        path = os.path.join(tempfile.gettempdir(), f"push-{os.getpid()}.log.{n}")
        held.append(open(path, "w"))
        os.unlink(path)


def connects():
    """Connects to itself until there is no port left."""
    listener = listening(port=8000)
    try:
        while len(held) < 10_000:
            near = socket.create_connection(listener.getsockname())
            held.append((near, listener.accept()[0]))
    except OSError as error:
        say(f"error {error.strerror}")


def grows():
    """Makes a socket twenty times a second, and closes none."""
    say("ready")
    while True:
        held.append(socket.socket())
        time.sleep(0.05)


def remembers():
    """Takes so many MiB."""
    held.append(b"\1" * (number << 20))


def selects():
    """Waits with select() for whoever comes."""
    listener = listening()
    say("ready")
    while True:
        readable = select.select([listener, *held], [], [])[0]
        for client in readable:
            if client is listener:
                held.append(listener.accept()[0])
            elif not client.recv(1000):
                held.remove(client)
                client.close()


{
    "connects": connects,
    "deleted": deleted,
    "fresh": fresh,
    "grows": grows,
    "keeps": keeps,
    "never-accepts": never_accepts,
    "remembers": remembers,
    "selects": selects,
}[part]()
wait_for_the_end()
