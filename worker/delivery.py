"""Sends one webhook message by the rules of Standard Webhooks 1.0: signed, timed, without following a redirect."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from store.webhooks import Parcel
from worker.outbound import Destination, DestinationRefusedError, Resolver, destination, resolve

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
USER_AGENT = "Bitmill-Webhooks/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt went. error: None where the receiver has it. gone: the receiver wants no more of them."""

    status_code: int | None
    error: str | None
    gone: bool = False


class Sender:
    """Sends messages over connections that are not kept."""

    def __init__(
        self,
        *,
        private: bool,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """private: see `worker.outbound.destination`. tls: whom to trust; None: the usual authorities."""
        self._private = private
        self._resolver = resolver
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
        self._clock = clock

    def send(self, parcel: Parcel, secret: str) -> Outcome:
        """Returns what became of one attempt; raises nothing that the receiver could cause."""
        body = json.dumps(parcel.delivery.body, ensure_ascii=False, separators=(",", ":")).encode()
        timestamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": parcel.delivery.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(secret, parcel.delivery.id, timestamp, body),
        }
        try:
            place = destination(parcel.url, private=self._private, resolver=self._resolver)
            return _outcome(self._post(place, headers, body))
        except DestinationRefusedError as error:
            return Outcome(status_code=None, error=f"Not sent: {error}.")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Outcome(status_code=None, error=f"No answer: {str(error) or type(error).__name__}.")

    def _post(self, place: Destination, headers: dict[str, str], body: bytes) -> int:
        # No proxy of the environment: it would resolve the name once more.
        with httpx.Client(verify=self._tls, timeout=TIMEOUT, trust_env=False, follow_redirects=False) as client:
            request = client.build_request(
                "POST",
                place.url,
                content=body,
                headers={**headers, "Host": place.host_header},
                extensions={"sni_hostname": place.server_name},
            )
            # The answer's body is nobody's business, and might have no end.
            response = client.send(request, stream=True)
            response.close()
            return response.status_code


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Returns the value of `webhook-signature`: HMAC-SHA256 over id, time and body, in version 1 of the scheme."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _outcome(status_code: int) -> Outcome:
    if HTTPStatus.OK <= status_code < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome(status_code=status_code, error=None)
    gone = status_code == HTTPStatus.GONE
    return Outcome(status_code=status_code, error=f"The receiver answered {status_code}.", gone=gone)
