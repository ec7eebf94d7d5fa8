"""Work begun ahead of its use: result, error, and no threads to be had."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from raxe_fast import ahead as module
from raxe_fast.ahead import Ahead


def test_it_works_beside_us():
    begun, go = threading.Event(), threading.Event()

    def work():
        begun.set()
        assert go.wait(60)
        return threading.get_ident()

    with Ahead(work) as ahead:
        assert begun.wait(60)
        go.set()
        assert ahead.result() != threading.get_ident()
        assert ahead.result() == ahead.result()


def test_its_error_comes_with_the_result():
    error = LookupError("gone")

    def work():
        raise error

    with Ahead(work) as ahead:
        for _ in range(2):
            with pytest.raises(LookupError, match="gone"):
                ahead.result()


def test_leaving_waits_for_it():
    done = []
    with pytest.raises(KeyError), Ahead(lambda: done.append(threading.get_ident())):
        raise KeyError
    assert len(done) == 1


def test_without_threads_it_is_done_at_once(monkeypatch):
    def none(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start_new_thread", none)
    with Ahead(threading.get_ident) as ahead:
        assert ahead.result() == threading.get_ident()


def test_a_model_can_be_loaded_once_the_main_thread_has_ended(tiny_model):
    program = f"""
import threading
from raxe_fast import load_model
main = threading.current_thread()
def serve():
    main.join()
    print(load_model({str(tiny_model)!r}).id)
threading.Thread(target=serve).start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip() and not done.stderr, done.stderr
