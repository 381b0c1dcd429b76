"""Whoever reads what a run writes may end first, and a log's disk may be full: the run goes on."""

import errno
import os
import signal
import time

import pytest

from purenoise_jax import cluster
from purenoise_jax.peers import Peers
from purenoise_jax.stop import StopRequest

DEAD = [OSError(errno.EPIPE, "reader gone"), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "")]


@pytest.fixture(params=DEAD, ids=lambda error: errno.errorcode[error.errno])
def dead(request, monkeypatch):
    """Nothing can be written with the system's own call; returns exit codes, in place of exits."""

    def write(descriptor, data):
        raise request.param

    codes = []
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_a_signal_is_noted_although_nobody_can_be_told(dead):
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)
        assert stop.requested


def test_a_process_whose_peer_is_gone_ends_although_nobody_can_be_told(dead):
    Peers(None, 1.0)._end("process 1 is gone", 1)
    assert dead == [1]


def test_a_start_that_takes_too_long_ends_although_nobody_can_be_told(dead):
    with cluster._deadline(0.01, "processes did not come within"):
        end = time.monotonic() + 20
        while not dead and time.monotonic() < end:
            time.sleep(0.01)
    assert dead == [2]
