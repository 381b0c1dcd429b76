"""A fork server whose runs violate the invariant named in the file SABOTAGE.

Fault injection must find the violation.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

from purenoise_jax.chaos import forkserver
from purenoise_jax.checkpoint import manager, manifest
from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime.errors import CheckpointError, InUseError
from purenoise_jax.runtime.preemption import PreemptionHandler
from purenoise_jax.training import setup


def unlocked():
    setup.WorkdirLock = contextlib.nullcontext


def unverified():
    manifest.find_damage = lambda folder, only=None: None


def starts_from_scratch():
    newest = Checkpoints.newest

    def any_at_all(self, set_aside=False):
        try:
            return newest(self, set_aside)
        except CheckpointError:
            return None

    Checkpoints.newest = any_at_all


def committed_too_late():
    def complete(self, step, staged):
        there = self.folder / str(step)
        staged.rename(there)
        time.sleep(0.3)
        manifest.commit(there)

    Checkpoints._complete = complete


def deletes_before_it_saves():
    save, complete = Checkpoints.save, Checkpoints._complete

    def careless(self, state, record, best=None):
        self.wait()
        for step in self.steps():
            shutil.rmtree(self.folder / str(step))
        save(self, state, record, best)

    def complete_slowly(self, step, staged):
        # Longer than it takes from the decision to kill until the kill.
        time.sleep(0.3)
        complete(self, step, staged)

    Checkpoints.save, Checkpoints._complete = careless, complete_slowly


def ignores_signals():
    PreemptionHandler.requested = property(lambda self: False)
    PreemptionHandler.poll = lambda self: None


def wrong_exit_code():
    def save_quietly(self, step, error):
        return InUseError("something is wrong")

    Checkpoints._failure = save_quietly


def hangs():
    def wait(self):
        time.sleep(1000)

    manager.Checkpoints.wait = wait


if __name__ == "__main__":
    become = forkserver.become

    def become_careless(spec):
        globals()[Path(os.environ["SABOTAGE"]).read_text()]()
        return become(spec)

    forkserver.become = become_careless
    forkserver.main()
