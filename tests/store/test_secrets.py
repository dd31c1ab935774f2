"""Secrets at rest: what comes back, and what must not."""

import os
from uuid import UUID, uuid4

import pytest

from chatd.store.secrets import KeyRing, Tampered, UnknownKey

ROW = UUID(int=7)
OLD, NEW = os.urandom(32), os.urandom(32)


def seal(keys: KeyRing, secret: str, row_id: UUID = ROW) -> tuple[bytes, str]:
    return keys.encrypt(secret, table="servers", column="api_key", row_id=row_id)


def open_(keys: KeyRing, sealed: bytes, key_id: str | None, **place: object) -> str:
    at = {"table": "servers", "column": "api_key", "row_id": ROW} | place
    return keys.decrypt(sealed, key_id, **at).get_secret_value()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("secret", ["", "s3cret", "žluťoučký 🐎", "x" * 100_000])
def test_a_secret_comes_back_as_it_was(secret: str) -> None:
    keys = KeyRing({"a": OLD})
    sealed, key_id = seal(keys, secret)
    assert secret == "" or secret.encode() not in sealed
    assert open_(keys, sealed, key_id) == secret


def test_equal_secrets_have_different_ciphertexts() -> None:
    keys = KeyRing({"a": OLD})
    assert seal(keys, "same") != seal(keys, "same")


def test_the_first_key_writes_and_all_read() -> None:
    sealed, key_id = seal(KeyRing({"old": OLD}), "secret")
    rotated = KeyRing({"new": NEW, "old": OLD})
    assert open_(rotated, sealed, key_id) == "secret"
    assert seal(rotated, "secret")[1] == "new"


def test_a_key_that_is_gone_is_named() -> None:
    sealed, _ = seal(KeyRing({"old": OLD}), "secret")
    with pytest.raises(UnknownKey, match="'old'"):
        open_(KeyRing({"new": NEW}), sealed, "old")
    with pytest.raises(UnknownKey, match="None"):
        open_(KeyRing({"new": NEW}), sealed, None)


@pytest.mark.parametrize(
    "place", [{"row_id": uuid4()}, {"column": "client_secret"}, {"table": "providers"}]
)
def test_a_ciphertext_that_was_moved_is_refused(place: dict[str, object]) -> None:
    keys = KeyRing({"a": OLD})
    sealed, key_id = seal(keys, "secret")
    with pytest.raises(Tampered):
        open_(keys, sealed, key_id, **place)


def test_a_ciphertext_that_was_changed_or_cut_is_refused() -> None:
    keys = KeyRing({"a": OLD})
    sealed, key_id = seal(keys, "secret")
    for broken in (sealed[:-1], bytes([*sealed[:-1], sealed[-1] ^ 1]), b"", b"\x02" + sealed[1:]):
        with pytest.raises(Tampered):
            open_(keys, broken, key_id)


def test_the_ring_does_not_show_its_keys() -> None:
    assert repr(KeyRing({"a": b"k" * 32})) == "KeyRing(a)"


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing({"a": b"short"})
