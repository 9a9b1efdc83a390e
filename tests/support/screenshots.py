"""Makes the pictures of the live page in the README: `make screenshots`, two minutes, needs Chromium and pngquant.

A shop on an embedded broker, with one more user who is followed, a late row, a dead letter, and in the end a partition
whose broker has gone.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings

from .browser import Browser, unavailable
from .programs import ROOT, Programs, environment, free_port

IMAGES = ROOT / "docs/images"
USER = 4711

# seconds after the start; what; page; amount
STORY = [
    (0, "page-view", 3, None),
    (2, "search", 3, None),
    (4, "purchase", 8, None),
    (5, None, 3, 12.5),
    (6, None, 8, 89.9),
    (9, "page-view", 8, None),
    (35, "page-view", 5, None),
    (37, "click", 5, None),
    (39, "purchase", 5, None),
    (40, None, 5, 24),
    (41, "click", 6, None),
]


def tell(settings: Settings) -> None:
    """Writes the story of one user as it happens, and rows that go wrong."""
    clicks, purchases = settings.inputs
    producer = Producer({"bootstrap.servers": settings.brokers})

    def write(topic: str, row: dict | bytes) -> None:
        value = row if isinstance(row, bytes) else json.dumps(row).encode()
        producer.produce(topic, value, b"%d" % USER)
        producer.flush(10)

    start = time.time()
    for after, kind, page, amount in STORY:
        time.sleep(max(0, start + after - time.time()))
        row = {"user_id": USER, "page_id": page, "timestamp": round(time.time(), 3)}
        if kind is None:
            write(purchases, {"amount": amount, **row})
        else:
            write(clicks, {"event_type": kind, **row})
    write(clicks, {"event_type": "click", "user_id": USER, "page_id": 8, "timestamp": round(start + 15, 3)})
    write(clicks, {"event_type": "click", "user_id": f"{USER}", "page_id": 8, "timestamp": round(time.time(), 3)})
    write(clicks, b'{"event_type":"<script>alert(1)</script>","user_id":')


def shrink(file: Path) -> None:
    """To a picture of few colours, a third of the size."""
    subprocess.run(["pngquant", "--force", "--nofs", "--output", file, "128", file], check=True)


def main() -> int:
    if reason := unavailable():
        print(reason, file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with EmbeddedKafka() as kafka, tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        settings = Settings(_env_file=None, brokers=kafka.brokers)
        for topic in settings.inputs + settings.outputs:
            kafka.create_topic(topic)
            for partition in range(8):
                kafka.set_leader(topic, partition, 1)
        kafka.set_leader(settings.topic_user_events, 5, 3)
        port, programs = free_port(), Programs(directory)
        try:
            programs.start("producer", "--rate", "6", "--history", "180", "--seed", "7", **environment(settings))
            programs.start("dataflow", "-r", str(directory / "store"), **environment(settings, page_port=str(port)))
            with Browser(directory / "browser") as browser:
                browser.look_like(1280, 900)
                while browser.text("#state") != "live":
                    browser.open(f"http://127.0.0.1:{port}/?user={USER}")
                    time.sleep(2)
                tell(settings)
                browser.until(lambda: "amount 24" in browser.text("#lane") and browser.text("#dead_letters .reason"))
                time.sleep(4)
                browser.picture(IMAGES / "page.png")
                kafka.stop_brokers(3)
                browser.until(lambda: "its leader does not answer" in browser.text("#waits"))
                time.sleep(9)
                browser.look_like(390, 844, dark=True)
                time.sleep(2)
                browser.picture(IMAGES / "phone.png", height=1100)
        finally:
            programs.kill_all()
    for file in IMAGES.glob("*.png"):
        shrink(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
