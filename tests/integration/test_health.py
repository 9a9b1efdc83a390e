"""The health endpoint of a running job."""

import time
import urllib.error
import urllib.request

from support.jobs import LIVE, a_log, wait_until, write
from support.programs import environment, free_port


def ask(port: int, probe: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{probe}", timeout=60) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


def test_job_is_ready_once_caught_up_and_alive_while_brokers_are_away(
    embedded_kafka, embedded_settings, programs, tmp_path
):
    settings, port = embedded_settings.model_copy(update=LIVE), free_port()
    write(settings.brokers, a_log(settings, time.time() - 600, keyed=True, events=200))
    job = programs.start(
        "dataflow", "-r", str(tmp_path / "store"), "-w", "2", **environment(settings, health_port=str(port))
    )

    def says(probe: str, status: int) -> bool:
        try:
            return ask(port, probe)[0] == status
        except OSError:
            return False  # not there yet

    wait_until(lambda: says("ready", 200), "the job is ready", job)
    embedded_kafka.stop_brokers()
    wait_until(lambda: says("ready", 503), "the job is not ready", job)
    assert " was last read to its end " in ask(port, "ready")[1]
    assert ask(port, "live")[0] == 200
    embedded_kafka.start_brokers()
    wait_until(lambda: says("ready", 200), "the job is ready", job)
    assert ask(port, "live")[0] == 200
