"""Secrets at rest: AES-256-GCM under a ring of keys, each ciphertext bound to its place."""

import hashlib
import secrets
from collections.abc import Mapping
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from chatd.core.errors import ChatdError

KEY_BYTES = 32
_NONCE_BYTES = 12
_FINGERPRINT_DIGITS = 16
_FORMAT = b"\x01"
"""First byte of every ciphertext, so that another construction can follow."""


class UnknownKey(ChatdError):
    """A stored secret was written with a key this process does not have."""

    code = "unknown_encryption_key"


class Tampered(ChatdError):
    """A stored secret was changed, or moved from the row it was written for."""

    code = "tampered_secret"


class KeyRing:
    """Keys by id: the first one writes, all of them read."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(_checked(key)) for key_id, key in keys.items()}
        self.writer = next(iter(keys))
        """The id of the key that encrypts."""
        self.fingerprints = {key_id: _fingerprint(key) for key_id, key in keys.items()}
        """By id: what tells whether two processes mean the same key, and tells no more."""

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._ciphers)})"

    def encrypt(self, secret: str, *, table: str, column: str, row_id: UUID) -> tuple[bytes, str]:
        """The ciphertext and the id of the key that reads it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self.writer].encrypt(
            nonce, secret.encode(), _place(table, column, row_id)
        )
        return _FORMAT + nonce + sealed, self.writer

    def decrypt(
        self, ciphertext: bytes, key_id: str | None, *, table: str, column: str, row_id: UUID
    ) -> SecretStr:
        """Raises `UnknownKey`, or `Tampered` when it is not what was written for this place."""
        where = f"{table}.{column} of {row_id}"
        cipher = self._ciphers.get(key_id or "")
        if cipher is None:
            raise UnknownKey(f"{where} needs the encryption key {key_id!r}, which is not set.")
        nonce, sealed = ciphertext[1 : 1 + _NONCE_BYTES], ciphertext[1 + _NONCE_BYTES :]
        if ciphertext[:1] != _FORMAT or len(nonce) < _NONCE_BYTES:
            raise Tampered(f"{where} is not a secret this release can read.")
        try:
            plain = cipher.decrypt(nonce, sealed, _place(table, column, row_id))
        except InvalidTag:
            raise Tampered(f"{where} was changed, or written for another row.") from None
        return SecretStr(plain.decode())


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"an encryption key has {KEY_BYTES} bytes")
    return key


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"chatd encryption key\n" + key).hexdigest()[:_FINGERPRINT_DIGITS]


def _place(table: str, column: str, row_id: UUID) -> bytes:
    return f"{table}\n{column}\n{row_id}".encode()
