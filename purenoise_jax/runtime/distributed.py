"""Joins the processes of a run."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import jax

from purenoise_jax.runtime.errors import ConfigError, one_line
from purenoise_jax.runtime.heartbeat import Heartbeat

HEARTBEAT_SECONDS, START_SECONDS = 30, 300


@contextlib.contextmanager
def initialize(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    heartbeat: int = HEARTBEAT_SECONDS,
    start_timeout: int = START_SECONDS,
) -> Iterator[None]:
    """Makes this one of the processes of a run; to be entered before any device is touched.

    Args:
        coordinator: HOST:PORT at which process 0 can be reached, "auto" to ask the cluster, None
            for a single process.
        num_processes: of the run.
        process_id: of this one.
        heartbeat: seconds without a word after which a process is taken for gone.
        start_timeout: seconds that the processes wait for each other at the start. After that this
            one ends with a line and the exit code of a `ConfigError`.

    Raises:
        ConfigError: some of the three arguments are missing, or there is nobody to connect to.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise ConfigError("--num_processes and --process_id need --coordinator=HOST:PORT")
        yield
        return
    address = None if coordinator == "auto" else coordinator
    if address and (num_processes is None or process_id is None):
        raise ConfigError("--coordinator=HOST:PORT needs --num_processes and --process_id")
    host, port = _split(address) if address else (None, 0)
    # JAX's preemption service takes SIGTERM away from the process without ending it.
    jax.config.update("jax_enable_preemption_service", False)
    with _deadline(start_timeout, f"--coordinator={coordinator}: not all processes came within"):
        try:
            jax.distributed.initialize(
                address,
                num_processes,
                process_id,
                # What JAX does at these times is to abort; ours come first.
                initialization_timeout=start_timeout + 30,
                heartbeat_timeout_seconds=2 * heartbeat,
                shutdown_timeout_seconds=heartbeat,
                coordinator_bind_address=_bind_address(host, port) if process_id == 0 else None,
            )
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"--coordinator={coordinator}: cannot connect: {reason}") from error
        beating = Heartbeat(host, heartbeat)
    with beating:
        yield


def _split(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; an IPv6 address stands in brackets."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--coordinator={address} is not legal; legal: HOST:PORT, or auto")
    return host.strip("[]"), int(port)


def _bind_address(host: str | None, port: int) -> str | None:
    """The address at which process 0 listens: only the one that it was given.

    None, which is JAX's default of all addresses, if that address does not belong to this machine
    (for example behind address translation), or if the user has set another for JAX.
    """
    if host is None or os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
        return None
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind((found[0], 0))
    except OSError:
        return None
    return f"[{found[0]}]:{port}" if family == socket.AF_INET6 else f"{found[0]}:{port}"


@contextlib.contextmanager
def _deadline(seconds: float, what: str) -> Iterator[None]:
    """Ends the process with a line if what happens within takes longer."""

    def end() -> None:
        message = one_line(f"error: {what} {seconds:g} s, or cannot reach each other") + "\n"
        # The library waits in compiled code and would abort the process in the end.
        with contextlib.suppress(OSError):
            os.write(2, message.encode())
        os._exit(ConfigError.exit_code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
