"""A real Kafka that wants TLS, a password and permission: one node, made from the first of docker-compose.yml.

Certificates are made by `keytool`, which comes with Java. The node is looked after over its inner listener, which asks
for nothing, as a superuser.
"""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from .real_kafka import Environments, RealKafka

USER = "clicks"
PASSWORD = "pa55-w0rd=never&shown"

_STORE_PASSWORD = "changeit"  # keytool asks for one
_NODE = 1

Grant = tuple[ResourceType, str, AclOperation]


class SecuredKafka(RealKafka):
    """One broker; `properties` are what a client needs to be let in, `superuser` those of one who may do everything."""

    def __init__(self) -> None:
        super().__init__(alter=_secure, admin_listener="INTERNAL")
        self.properties = {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
            "ssl.ca.location": str(self.directory / "server.pem"),
        }
        self.superuser = {"bootstrap.servers": self._addresses[_NODE]}
        self.stranger = _certificate(self.directory, "stranger")  # of somebody that the broker is not

    def grant(self, grants: Iterable[Grant]) -> None:
        for made in self.admin.create_acls([AclBinding(*_acl(*grant)) for grant in grants]).values():
            made.result()

    def revoke(self, grants: Iterable[Grant]) -> None:
        for gone in self.admin.delete_acls([AclBindingFilter(*_acl(*grant)) for grant in grants]).values():
            assert gone.result(), "there was no such grant"


def _acl(kind: ResourceType, name: str, operation: AclOperation) -> tuple:
    return kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, AclPermissionType.ALLOW


def _certificate(directory: Path, name: str) -> Path:
    """Makes a key that vouches for itself; returns the certificate, which is all that a client needs of it."""
    store = ["-keystore", f"{name}.p12", "-storetype", "PKCS12", "-storepass", _STORE_PASSWORD, "-alias", name]
    kind = ["-keyalg", "EC", "-groupname", "secp256r1", "-dname", f"CN={name}", "-ext", "san=ip:127.0.0.1"]
    for command in (["-genkeypair", *kind, "-validity", "2"], ["-exportcert", "-rfc", "-file", f"{name}.pem"]):
        subprocess.run(["keytool", *command, *store], cwd=directory, check=True, capture_output=True)
    return directory / f"{name}.pem"


def _secure(directory: Path, environments: Environments) -> Environments:
    environment = environments[_NODE]
    voters = environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
    alone = {name: "1" for name in environment if name.endswith(("_FACTOR", "_ISR", "_REPLICAS"))}
    _certificate(directory, "server")
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return {
        _NODE: {
            **environment,
            **alone,
            "KAFKA_CONTROLLER_QUORUM_VOTERS": next(voter for voter in voters if voter.startswith(f"{_NODE}@")),
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,EXTERNAL:SASL_SSL",
            "KAFKA_SSL_KEYSTORE_LOCATION": str(directory / "server.p12"),
            "KAFKA_SSL_KEYSTORE_TYPE": "PKCS12",
            "KAFKA_SSL_KEYSTORE_PASSWORD": _STORE_PASSWORD,
            "KAFKA_SSL_KEY_PASSWORD": _STORE_PASSWORD,
            "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN",
            "KAFKA_LISTENER_NAME_EXTERNAL_PLAIN_SASL_JAAS_CONFIG": f'{login} required user_{USER}="{PASSWORD}";',
            "KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "KAFKA_SUPER_USERS": "User:ANONYMOUS",
        }
    }
