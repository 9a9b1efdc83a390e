"""A real Apache Kafka on this machine, without Docker: the three brokers of docker-compose.yml, or one, run on Java.

Each broker gets the environment that compose would give it, turned into server properties by the very program
that does it in the image. Only hosts, ports and the data directory are changed.
"""

import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType

import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from .paths import ROOT

COMPOSE = ROOT / "docker-compose.yml"
LIBS = ROOT / ".kafka" / "libs"
READY = ROOT / ".kafka" / ".ready"  # made once all jars are there
IMAGE = "apache/kafka:"

UP_WITHIN = 240.0  # seconds; a busy machine takes long to start three Java machines
RESTARTS = 3  # of brokers that end at their start, as compose would; one that finds no other for too long does
STOP_WITHIN = 15.0

# below what systems give to outgoing connections: a client that keeps calling a stopped broker must not take its port
PORTS = range(20_000, 32_000)

ADDRESS = re.compile(r"([\w.-]*):(\d+)")

Environments = dict[int, dict[str, str]]  # each broker's, by its id


def unavailable() -> str | None:
    """Why a real Kafka cannot be started here; None if it can."""
    if not shutil.which("java"):
        return "a real Kafka needs Java 17 or later"
    if not READY.exists():
        return "there is no Kafka in .kafka/libs: run `make kafka` (needs Maven)"
    return None


class RealKafka:
    """A cluster, up from construction until `close`; `brokers` is its bootstrap address.

    Broker ids count from 1. Raises RuntimeError, with the end of its log, if a broker does not come up.

    Args:
        nodes: so many of compose's brokers, with no more replicas than that.
        java: options of the Java machine. The default is up sooner; without it Java compiles more, and is faster later.
        alter: may change the brokers' environments, for a cluster in the directory that it is given.
        admin_listener: the one over which the brokers are looked after.
    """

    def __init__(
        self,
        nodes: int = 3,
        java: tuple[str, ...] = ("-XX:TieredStopAtLevel=1",),
        alter: Callable[[Path, Environments], Environments] | None = None,
        admin_listener: str = "EXTERNAL",
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="visits-kafka-"))
        # brokers die with the thread that started them (see _die_with_parent), so one that lives long starts them all
        self._starter = ThreadPoolExecutor(1, "real-kafka")
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._paused: set[int] = set()
        self._options = java
        try:
            self._environments = _environments(self.directory, nodes)
            if alter is not None:
                self._environments = alter(self.directory, self._environments)
            self._addresses = self._listening(admin_listener)
            self.brokers: str = ",".join(self._listening("EXTERNAL").values())
            self.admin = AdminClient({"bootstrap.servers": ",".join(self._addresses.values()), "log_level": 0})
            self._format()
            self.start_brokers()
        except BaseException:
            self.close()
            raise

    def create_topic(self, name: str, partitions: int = 8) -> None:
        self.create_topics([name], partitions)

    def create_topics(self, names: Iterable[str], partitions: int = 8) -> None:
        """Makes topics with a replica on every broker, and waits until each partition has its leader."""
        new = [NewTopic(name, partitions, len(self._environments)) for name in names]
        for made in self.admin.create_topics(new).values():
            made.result()
        self._wait(lambda: self._whole({topic.topic for topic in new}), "the topics' leaders")

    def stop_brokers(self, *ids: int) -> None:
        """Ends brokers (all of them if none is named), in good order if they can; what they hold stays."""
        self._end(ids or tuple(self._processes), signal.SIGTERM)

    def kill_brokers(self, *ids: int) -> None:
        """kill -9: as when a machine fails."""
        self._end(ids or tuple(self._processes), signal.SIGKILL)

    def start_brokers(self, *ids: int) -> None:
        """Starts those that do not run (of all, if none is named), and waits until the cluster is whole again."""
        self.resume_brokers()
        for broker in ids or self._environments:
            if broker not in self._processes:
                self._start(broker)
        self._wait(self._whole, f"brokers {sorted(self._processes)} and their replicas", RESTARTS)

    def pause_brokers(self, *ids: int) -> None:
        """Brokers keep their connections but no longer answer, as on a network that swallows packets."""
        for broker in ids or self._processes:
            self._processes[broker].send_signal(signal.SIGSTOP)
            self._paused.add(broker)

    def resume_brokers(self, *ids: int) -> None:
        for broker in self._paused & set(ids or self._environments):
            self._processes[broker].send_signal(signal.SIGCONT)
            self._paused.remove(broker)

    def close(self) -> None:
        self._end(tuple(self._processes), signal.SIGKILL)
        self._starter.shutdown()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> "RealKafka":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listening(self, name: str) -> dict[int, str]:
        """The addresses of one of the listeners, by broker."""
        addresses = re.compile(rf"{name}://([^,]+)")
        return {
            broker: addresses.findall(environment["KAFKA_ADVERTISED_LISTENERS"])[0]
            for broker, environment in self._environments.items()
        }

    def _home(self, broker: int) -> Path:
        return self.directory / f"kafka-{broker}"

    def _format(self) -> None:
        """What the image does before its first start: properties from the environment, an empty store."""
        setups = {}
        for broker in self._environments:
            home = self._home(broker)
            (home / "none").mkdir(parents=True)  # no properties but ours
            folders = [
                "--default-configs-dir",
                home / "none",
                "--mounted-configs-dir",
                home / "none",
                "--final-configs-dir",
                home,
            ]
            setups[broker] = self._java(broker, "kafka.docker.KafkaDockerWrapper", "setup", *map(str, folders))
        for broker, setup in setups.items():
            if setup.wait(UP_WITHIN):
                raise RuntimeError(self._failure(broker))

    def _java(self, broker: int, *command: str) -> subprocess.Popen[bytes]:
        environment = self._environments[broker]
        heap = environment["KAFKA_HEAP_OPTS"].split()
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        with (self._home(broker) / "log").open("ab") as log:
            start = self._starter.submit(
                subprocess.Popen,
                ["java", *heap, *self._options, quiet, "-cp", f"{LIBS}/*", *command],
                env={"PATH": os.environ["PATH"], **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which then end the brokers in order
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
            return start.result()

    def _end(self, brokers: tuple[int, ...], sign: signal.Signals) -> None:
        ending = [self._processes.pop(broker) for broker in brokers if broker in self._processes]
        self._paused -= set(brokers)
        for process in ending:
            process.send_signal(sign)
            process.send_signal(signal.SIGCONT)  # a paused one would not hear it
        deadline = time.monotonic() + STOP_WITHIN
        for process in ending:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()  # the last broker finds no controller to take its leave of
                process.wait()

    def _whole(self, topics: Iterable[str] = ()) -> bool:
        """Every running broker answers and is known; every partition has its leader and all its running replicas."""
        running = set(self._processes)
        try:
            # a killed broker is known for 9 s more, so that alone does not tell that it is back: its port does
            for broker in running:
                host, port = self._addresses[broker].split(":")
                socket.create_connection((host, int(port)), timeout=5).close()
            cluster = self.admin.list_topics(timeout=5)
        except (OSError, KafkaException):
            return False
        return (
            set(cluster.brokers) == running
            and set(topics) <= set(cluster.topics)
            and all(
                partition.leader in running and set(partition.isrs) == set(partition.replicas) & running
                for topic in cluster.topics.values()
                for partition in topic.partitions.values()
            )
        )

    def _start(self, broker: int) -> None:
        self._processes[broker] = self._java(broker, "kafka.Kafka", str(self._home(broker) / "server.properties"))

    def _wait(self, condition: Callable[[], bool], what: str, restarts: int = 0) -> None:
        deadline = time.monotonic() + UP_WITHIN
        while not condition():
            for broker in [broker for broker, process in self._processes.items() if process.poll() is not None]:
                if not restarts:
                    raise RuntimeError(self._failure(broker))
                restarts -= 1
                self._start(broker)
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"still waiting for {what} after {UP_WITHIN:.0f} s; " + self._failure(*self._processes)
                )
            time.sleep(0.1)

    def _failure(self, *brokers: int) -> str:
        logs = ((broker, (self._home(broker) / "log").read_text(errors="replace")) for broker in brokers)
        return "\n".join(f"the log of broker {broker} ends:\n{text[-3000:]}" for broker, text in logs)


def _environments(directory: Path, nodes: int) -> Environments:
    """Each broker's environment as compose has it, moved to this machine: node id to variables."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    brokers = [(name, each) for name, each in services.items() if each.get("image", "").startswith(IMAGE)][:nodes]
    ports = _free_ports()
    moved: dict[tuple[str, str], str] = {}

    def move(host: str, port: str) -> str:
        if (host, port) not in moved:
            moved[host, port] = f"127.0.0.1:{next(ports)}"
        return moved[host, port]

    environments = {}
    for name, service in brokers:
        broker = int(service["environment"]["KAFKA_NODE_ID"])
        environment = {key: str(value) for key, value in service["environment"].items()}
        for key, value in environment.items():
            if key.endswith(("_REPLICATION_FACTOR", "_MIN_ISR", "_MIN_INSYNC_REPLICAS")):
                environment[key] = str(min(int(value), nodes))
        voters = environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")[:nodes]
        environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] = ",".join(voters)
        for key in ("KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS"):
            environment[key] = ADDRESS.sub(partial(_moved, move, name), environment[key])
        environments[broker] = {**environment, "KAFKA_LOG_DIRS": str(directory / f"kafka-{broker}" / "data")}
    return environments


def _moved(move: Callable[[str, str], str], own: str, found: re.Match[str]) -> str:
    """An address in a broker's properties, where it is here; `own` is the broker's name."""
    return move(own if found[1] in ("", "localhost") else found[1], found[2])


def _free_ports() -> Iterator[int]:
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


if sys.platform == "linux":
    _LIBC = ctypes.CDLL(None)
    _PR_SET_PDEATHSIG = 1

    def _die_with_parent() -> None:
        """Linux ends the broker when the thread that started it ends, even by kill -9."""
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
