"""An Apache Kafka of our own, one broker (KRaft): found, made, started, killed, started again in the same place."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from ticketrush.cluster.errors import NotInstalled
from ticketrush.cluster.ports import LOCALHOST, free_port
from ticketrush.cluster.server import LocalServer

VERSION: Final = "4.1.1"
"""What `scripts/kafka` fetches; its number is also in scripts/kafka.pom.xml."""

# A small heap, and what starts fastest on few processors; nothing is left in the system's temporary folder.
_JAVA_FLAGS: Final = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_LOGGING: Final = {"logFile": "System.out", "defaultLogLevel": "warn", "showDateTime": "true"}
_STARTED: Final = "Kafka Server started"
_WHO_SAYS_SO: Final = "kafka.server.KafkaRaftServer"


def find_jars() -> Path:
    """The folder with the jars that `scripts/kafka` fetched.

    Raises:
        NotInstalled: there is none, or no Java to run them; says what to do.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jars = Path(cache, "ticketrush", f"kafka-{VERSION}")
    if shutil.which("java") and jars.is_dir():
        return jars
    raise NotInstalled("there is no Kafka: install Java 17 and mvn, and run scripts/kafka, which fetches its jars")


class Kafka(LocalServer):
    """A broker on 127.0.0.1 with its data in `folder`/`name`-data.

    What it acknowledged outlives its process, however that ends; a power cut may take the last seconds,
    since a topic of one replica is in the system's page cache first. It does not know who asks it.
    """

    start_s = 60.0
    stop_s = 20.0

    def __init__(self, folder: Path, *, port: int = 0, name: str = "kafka") -> None:
        """`port` 0 takes a free one; it takes another for itself.

        Raises:
            NotInstalled: there is no Kafka; says what to do.
        """
        super().__init__(folder, name=name, port=port)
        self._jars = find_jars()

    @property
    def bootstrap(self) -> str:
        """Its address, for the setting `bootstrap.servers` of a client."""
        return f"{LOCALHOST}:{self.port}"

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self.folder / f"{self.name}-data"

    def command_line(self) -> list[str]:
        return self._java("kafka.Kafka", str(self._properties))

    def answers(self) -> bool:
        """Whether it has said so since it was started: the broker is known to its controller by then."""
        with contextlib.suppress(OSError):
            return _STARTED in self.log.read_text(errors="replace")
        return False

    def prepare(self) -> None:
        """Write its settings, and make its data folder if there is none, whole or not at all.

        Raises:
            ClusterError: that failed; has what it said.
        """
        if not self.data.exists():
            self._make_data()
        self._properties.write_text(self._settings(self.data))

    def _make_data(self) -> None:
        unfinished = self.data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        self._properties.write_text(self._settings(unfinished))
        flags = ("format", "--config", str(self._properties), "--cluster-id", _new_cluster_id())
        self.make(self._java("kafka.tools.StorageTool", *flags))
        unfinished.rename(self.data)

    @property
    def _properties(self) -> Path:
        return (self.folder / f"{self.name}.properties").absolute()

    def _settings(self, data: Path) -> str:
        controller = f"{LOCALHOST}:{free_port()}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": data.absolute(),
            # one broker has one copy of everything
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,  # there is nobody to wait for
            # after a kill it is taken for dead, and may come back, when this has passed
            "broker.session.timeout.ms": 1_500,
            "broker.heartbeat.interval.ms": 300,
            "controlled.shutdown.enable": "false",  # there is nobody to hand over to
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def _java(self, main: str, *flags: str) -> list[str]:
        logging = {**_LOGGING, f"log.{_WHO_SAYS_SO}": "info"}
        more = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in logging.items()]
        temporary = f"-Djava.io.tmpdir={self.folder.absolute()}"
        return ["java", *_JAVA_FLAGS, *more, temporary, "-cp", f"{self._jars}/*", main, *flags]


def _new_cluster_id() -> str:
    """16 bytes in base64; its first letter is no dash, which would look like a flag."""
    return base64.urlsafe_b64encode(b"ticketrush" + os.urandom(6)).decode().rstrip("=")
