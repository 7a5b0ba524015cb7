"""Where webhooks may go: every address of the name is looked at, and the connection goes to what was looked at."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from store.webhooks import Delivery, DeliveryState, Parcel
from tests.worker.receiver import receiver
from worker.delivery import Sender
from worker.outbound import DestinationRefusedError, destination

PUBLIC = "93.184.216.34"
INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 - an address to be refused
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
]


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_refused(address: str):
    """Alone, and where one public address stands beside it."""
    for found in ([address], [PUBLIC, address]):
        with pytest.raises(DestinationRefusedError, match="not a public address"):
            destination("https://hooks.example/x", private=False, resolver=lambda *_, found=found: found)


def test_a_public_address_is_pinned():
    """The URL carries the address, the header and the certificate's name the host; the port stays."""
    for port in ("", ":8443"):
        place = destination(f"https://hooks.example{port}/x?y=1", private=False, resolver=lambda *_: [PUBLIC])
        assert (place.url.host, place.url.path) == (PUBLIC, "/x")
        assert (place.host_header, place.server_name) == (f"hooks.example{port}", "hooks.example")
    six = destination("https://hooks.example/", private=False, resolver=lambda *_: ["2606:2800:220:1::1"])
    assert str(six.url) == "https://[2606:2800:220:1::1]/"


def test_plain_http_and_names_that_lead_nowhere_are_refused():
    def nowhere(*_: object) -> list[str]:
        raise OSError

    with pytest.raises(DestinationRefusedError, match="https"):
        destination("http://hooks.example/", private=False, resolver=lambda *_: [PUBLIC])
    for private in (False, True):
        with pytest.raises(DestinationRefusedError, match="does not resolve"):
            destination("https://hooks.example/", private=private, resolver=nowhere)


def parcel(url: str) -> Parcel:
    now = datetime.now(UTC)
    delivery = Delivery(
        id="msg_1",
        webhook_id="whk_1",
        job_id=None,
        body={"type": "webhook.test"},
        state=DeliveryState.PENDING,
        attempts=1,
        status_code=None,
        error=None,
        created_at=now,
        last_attempt_at=now,
        next_attempt_at=now,
    )
    return Parcel(delivery=delivery, url=url, secret_sealed="")


def certificate(folder: Path, name: str) -> Path:
    """Writes a certificate of its own authority for a name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_the_certificate_is_checked_for_the_name_and_not_for_the_address(tmp_path: Path):
    """A receiver behind a pinned address proves its name; one with another's certificate gets nothing."""
    pem = certificate(tmp_path, "hooks.example")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pem)
    trusting = ssl.create_default_context(cafile=str(pem))
    sender = Sender(private=True, resolver=lambda *_: ["127.0.0.1"], tls=trusting)
    with receiver(tls=serving) as server:
        outcome = sender.send(parcel(f"https://hooks.example:{server.server_port}/x"), "whsec_AAAA")
        assert (outcome.status_code, outcome.error) == (204, None)
        assert server.messages[0].headers["host"] == f"hooks.example:{server.server_port}"
        outcome = sender.send(parcel(f"https://other.example:{server.server_port}/x"), "whsec_AAAA")
        assert outcome.status_code is None
        assert "certificate" in str(outcome.error).lower()
        assert len(server.messages) == 1


def test_nothing_is_sent_inside_unless_that_is_allowed():
    """The refusal is the attempt's outcome; the receiver hears nothing."""
    with receiver() as server:
        outcome = Sender(private=False).send(parcel(server.url), "whsec_AAAA")
        assert "only https" in str(outcome.error)
        outcome = Sender(private=False).send(parcel(server.url.replace("http:", "https:")), "whsec_AAAA")
        assert "not a public address" in str(outcome.error)
        assert server.messages == []
        assert Sender(private=True).send(parcel(server.url), "whsec_AAAA").error is None
        assert len(server.messages) == 1
