"""The Pulumi CLI as `keadb` calls it: one stack's environment, and short calls with the value on stdin.

Only what the Automation API offers no safe way for goes through here (it puts secret values on a command line).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ops.exits import CommandError
from ops.stacks import Stack
from toolchain import cli
from toolchain.environment import engine_environment
from toolchain.errors import ToolchainError

CALL_SECONDS = 120
NO_STACK = "no stack named"


class Engine:
    """The CLI and environment for one stack. Raises CommandError when the toolchain was not set up."""

    def __init__(self, stack: Stack) -> None:
        """Find the CLI and the stack's state and passphrase; nothing is run yet."""
        self.stack = stack
        try:
            found = cli.find()
            self.environment: Mapping[str, str] = engine_environment(
                backend_url=stack.backend_url(), passphrase_file=stack.passphrase_file()
            )
        except ToolchainError as error:
            raise CommandError(str(error)) from error
        self.path: Path = found.path
        self.version = found.version

    def adopt_environment(self) -> None:
        """Make this process's environment the engine's: the Automation API would mix the caller's back in."""
        for name in set(os.environ) - set(self.environment):
            del os.environ[name]
        os.environ.update(self.environment)

    def prepare_backend(self) -> None:
        """Make the folder of a lab's state; the engine wants it to exist. Real backends are never created here."""
        if self.stack.is_lab:
            (self.stack.work_dir / "backend").mkdir(mode=0o700, exist_ok=True)

    def call(self, *arguments: str, stdin: str | None = None) -> str:
        """Run ``pulumi ARGUMENTS --stack NAME`` and return stdout; raise CommandError with its last error line.

        ``stdin`` may carry a secret: it appears in no message.
        """
        argv = [str(self.path), *arguments, "--stack", self.stack.name, "--non-interactive", "--color", "never"]
        try:
            done = subprocess.run(  # noqa: S603 -- the toolchain's CLI, no shell
                argv,
                cwd=self.stack.work_dir,
                env=dict(self.environment),
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                timeout=CALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            msg = f"stack {self.stack.name}: 'pulumi {arguments[0]}' did not end within {CALL_SECONDS} s"
            raise CommandError(msg) from None
        if done.returncode != 0:
            msg = f"stack {self.stack.name}: pulumi {' '.join(arguments[:2])}: {_reason(done.stderr)}"
            raise CommandError(msg)
        return done.stdout

    def ensure_stack(self) -> None:
        """Create the stack in its backend unless it is there."""
        self.prepare_backend()
        try:
            # Reads one file of the backend and, unlike 'stack init', touches nothing when the stack exists.
            self.call("stack", "--show-ids")
        except CommandError as error:
            if NO_STACK not in str(error):
                raise
            self.call("stack", "init", "--no-select")


def _reason(stderr: str) -> str:
    """Return what the CLI complained about in one line, or more when it listed several things."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error:")]
    return "; ".join(errors or lines[-1:] or ["failed and said nothing"])
