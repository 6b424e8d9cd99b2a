"""The stack's secrets inside the program: read once, complete or refused, and never an input in the clear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from keadb import secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONFIG_PREFIX = "secret_"


class MissingSecretsError(Exception):
    """Some of the stack's secrets are not set; names them all and says how to make them."""

    def __init__(self, stack: str, missing: Iterable[str]) -> None:
        names = ", ".join(f"keadb:{CONFIG_PREFIX}{name}" for name in missing)
        super().__init__(f"stack {stack} has no value for {names}: run `keadb secrets init --stack {stack}`")


class SiteSecrets:
    """Values by name. Fingerprints are plain text (keyed hashes); values only ever leave as secret outputs."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    @classmethod
    def from_config(cls, config: pulumi.Config, stack: str) -> SiteSecrets:
        """Read every secret of ``keadb.secrets`` from the stack's configuration.

        Raises MissingSecretsError naming all that are not set.
        """
        found = {spec.name: config.get(CONFIG_PREFIX + spec.name) for spec in secrets.SECRETS}
        missing = [name for name, value in found.items() if not value]
        if missing:
            raise MissingSecretsError(stack, missing)
        return cls({name: value for name, value in found.items() if value})

    def value(self, name: str) -> str:
        """Return the value itself; the caller must wrap whatever it makes of it as a secret, or sign with it."""
        return self._values[name]

    def output(self, name: str) -> pulumi.Output[str]:
        """Return the value as a secret output."""
        return pulumi.Output.secret(self._values[name])

    def fingerprints(self, names: Iterable[str]) -> dict[str, str]:
        """Return the keyed fingerprint of each named secret, which changes when and only when the secret does."""
        key = self._values["fingerprint_key"]
        return {name: secrets.fingerprint(key, name, self._values[name]) for name in names}
