"""Ctrl-C during a run: what people are told, and that nothing is torn down under the engine."""

from __future__ import annotations

import os
import signal

import pytest

from ops.events import Place, Progress, Run, State
from ops.interrupt import Interrupts


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_and_the_second_only_say_what_happens_and_the_third_ends_it() -> None:
    run = Run(hosts=("h1",))
    for step, state in (("base", State.OK), ("etcd", State.RUNNING)):
        run.steps[step] = Progress(place=Place("h1", step), urn=step, operation="update", state=state, started=1.0)
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(run, said.append) as interrupts:
        press()
        assert said[0].startswith("stopping once these have ended: h1: etcd. No other step begins.")
        press()
        assert said[1].startswith("stopping at once: what already runs on a host goes on there")
        with pytest.raises(KeyboardInterrupt):
            press()
    assert interrupts.count == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_before_any_step_there_is_nothing_to_wait_for() -> None:
    said: list[str] = []
    with Interrupts(Run(hosts=()), said.append):
        press()
    assert said[0].startswith("stopping. No other step begins.")
