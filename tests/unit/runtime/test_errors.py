"""A user error is one line; a failed thread ends the process with its traceback."""

import subprocess
import sys

SPEAK = 'from threading import Event, Thread\nfrom dataflow.observability import logs\nfrom dataflow.runtime.errors import install_error_handler\nfrom dataflow.streaming import errors\nlogs.start("json", "info")\ninstall_error_handler()\n'


def end_of(program: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-c", SPEAK + program], capture_output=True, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_failed_thread_ends_the_process_with_its_traceback():
    status, said = end_of("Thread(target=lambda: 1 / 0, name='poller').start()\nEvent().wait()")
    assert status == 1
    assert "ZeroDivisionError" in said
    assert "thread poller has failed" in said


def test_a_user_error_inside_the_engine_is_one_line():
    status, said = end_of("""
@errors.inside_engine
def build_part():
    raise errors.UserError("the topic is gone")
build_part()
""")
    assert status == 1
    assert "the topic is gone" in said
    assert "Traceback" not in said


def test_an_error_of_ours_ends_the_process_with_its_traceback_and_without_the_totals():
    status, said = end_of("import atexit\natexit.register(print, 'read nothing')\n1 / 0")
    assert status == 1
    assert "ZeroDivisionError" in said
    assert "read nothing" not in said


def test_files_of_the_store_that_do_not_belong_together_are_one_line():
    status, said = end_of(
        "from bytewax.recovery import InconsistentPartitionsError\nraise InconsistentPartitionsError('no')"
    )
    assert status == 1
    assert "the recovery store cannot be resumed: no; put it back, or start with an empty one" in said
    assert "Traceback" not in said


def test_a_cluster_whose_addresses_cannot_be_used_is_one_line():
    status, said = end_of("raise RuntimeError('x\\nCaused by => Exception: failed to initialize networking: in use')")
    assert status == 1
    assert "the processes of the cluster cannot be connected (in use): is one of the addresses (-a) in use" in said
    assert "Traceback" not in said
