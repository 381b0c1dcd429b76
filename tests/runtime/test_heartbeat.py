"""The connections that processes watch each other by, up to the point where all have come."""

import socket
import threading
import time

import jax
import pytest
from jax.experimental import multihost_utils

from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.runtime.heartbeat import Peers


@pytest.fixture
def pose(monkeypatch):
    """Makes this process one of two; what process 0 tells is `text`, or what it says itself."""

    def make(index, text=None):
        heard = []

        def broadcast(own):
            heard.append(bytes(own))
            return own if text is None else text

        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
        return heard

    return make


def test_process_0_waits_until_all_have_come(pose):
    """One that is gone before it has said its name would not be missed."""
    heard = pose(0)
    made, peers = threading.Event(), []

    def make():
        peers.append(Peers("127.0.0.1", 10))
        made.set()

    threading.Thread(target=make, daemon=True).start()
    while not heard:
        time.sleep(0.01)
    token, port, host = heard[0].split()
    address = (host.decode(), int(port))
    with socket.create_connection(address) as stranger, socket.create_connection(address) as other:
        stranger.sendall(b"guess 1\n")
        assert not made.wait(0.3)
        other.sendall(token + b" 1\n")
        assert made.wait(10)
    for open_one in (peers[0]._listener, peers[0]._links[0].connection):
        open_one.close()


def test_a_process_0_that_cannot_be_reached_is_named(pose):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pose(1, f"token {port} 127.0.0.1".encode())
    with pytest.raises(ConfigError, match=rf"process 0 cannot be reached at 127\.0\.0\.1:{port}: "):
        Peers("127.0.0.1", 10)
