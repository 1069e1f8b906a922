"""Signatures of requests. They cover user, time and a nonce too, which prevents forgery and replay."""

from __future__ import annotations

import hashlib
import hmac

from galaxy.errors import UsageError
from galaxy.model.api.request import Request
from galaxy.model.base import encode_sorted


def client_key(token: str) -> bytes:
    """Return the key that the holder of ``token`` signs with; it never leaves the client."""
    return hmac.digest(token.encode(), b"galaxy client key", hashlib.sha256)


def stored_key(token: str) -> str:
    """Return what the cluster keeps of a token: enough to check a signature, too little to make one.

    The scheme is that of SCRAM (RFC 5802): the proof is the client's key, masked with a MAC
    that both can compute. Tokens are random, so no slow hash is needed.
    """
    return hashlib.sha256(client_key(token)).hexdigest()


def canonical(request: Request) -> bytes:
    """Return the bytes that a signature covers: every field of a request but ``proof``."""
    fields = (
        request.op, request.key, request.reply, request.deadline_s, request.user, request.at_s, request.nonce,
        request.body,
    )  # fmt: skip
    return b"galaxy request 1\n" + encode_sorted(fields)


def proof_of(request: Request, token: str) -> str:
    """Return the signature of ``request`` by the holder of ``token``."""
    key = client_key(token)
    return _masked(key, hashlib.sha256(key).digest(), request).hex()


def is_signed(request: Request, stored: str) -> bool:
    """Return whether ``request`` was signed with the token that ``stored`` was derived from."""
    try:
        kept, proof = bytes.fromhex(stored), bytes.fromhex(request.proof)
    except ValueError:
        return False
    if len(kept) != 32 or len(proof) != 32:
        return False
    key = _masked(proof, kept, request)
    return hmac.compare_digest(hashlib.sha256(key).digest(), kept)


def split_token(token: str) -> tuple[str, str]:
    """Return user and secret of a token as people keep it: ``USER:SECRET``.

    Raises:
        UsageError: ``token`` has another form.
    """
    user, colon, secret = token.strip().partition(":")
    if not colon or not user or len(secret) < 20:
        raise UsageError("not a token", hint="USER:SECRET, as galaxy user add prints it")
    return user, secret


def _masked(key: bytes, stored: bytes, request: Request) -> bytes:
    mask = hmac.digest(stored, canonical(request), hashlib.sha256)
    return bytes(a ^ b for a, b in zip(key, mask, strict=True))
