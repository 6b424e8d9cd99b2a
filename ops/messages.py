"""What engine and hosts say when something fails, in words that people can act on. Pure: text in, text out."""

from __future__ import annotations

import re

MARKUP = re.compile(r"<\{%.*?%\}>|\x1b\[[0-9;]*[A-Za-z]")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
RUNNING = re.compile(r"""running (?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'):?\s*""", re.DOTALL)
EXIT_STATUS = re.compile(r"(?:Process exited with status|exit status) (\d+)")
LOST = re.compile(r"without exit status or exit signal|connection (?:lost|reset)|broken pipe|\bEOF\b", re.IGNORECASE)
"""What the official command plugin or ours says when a connection ended before the command on the host did."""
APPLIER_ERROR = re.compile(r"^keadb-apply( [a-z-]+)?: ", re.MULTILINE)
PROGRAM_ERROR = "python inline source runtime error: "
OUTPUT_LINES = 12
"""Of what a command printed; the end says why it failed."""
ERROR_LINES = 120
"""Of an error that the applier made. It keeps within limits of its own; this one is for what nobody thought of."""
SUDO_RULE = re.compile(r"^sudo: a (?:password|terminal) is required", re.MULTILINE)
NOT_THERE = re.compile(
    r"^sudo: (?:unable to execute )?\S*keadb-apply: (?:command not found|No such file or directory)$", re.MULTILINE
)


def plain(text: str) -> str:
    """Return the text without the engine's colour markup."""
    return MARKUP.sub("", text)


def readable(message: str, host: str | None = None, step: str | None = None) -> str:
    """Return an engine's error message as people need it: the applier's own error, or the end of what was printed.

    The command plugin reports ``<reason>: running "<the whole command>":`` and then what the command printed. The
    command is the same for every step and stdin is not part of it; what it printed is what people need. A
    connection that was lost is told as that: what was printed before it is only how far the step was. ``host`` and
    ``step`` name where it happened, None where the engine does not say.
    """
    text = plain(message).strip().removeprefix(PROGRAM_ERROR)
    # A program error carries its traceback behind the message; the message was written for people.
    text = text.split("\nTraceback (most recent call last)", 1)[0]
    status = EXIT_STATUS.search(text)
    found = RUNNING.search(text)
    if found:
        said = text[found.end() :].strip()
        reason = text[: found.start()].strip().rstrip(":")
        if not status:
            return _broken_off(reason, said, host or "the host", step or "a step")
        text = said or reason
    if own := APPLIER_ERROR.search(text):
        return _shortened(text[own.start() :])
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.strip().startswith(("error: update failed", "warning: "))] or lines
    if len(lines) > OUTPUT_LINES:
        lines = [f"[... {len(lines) - OUTPUT_LINES} lines before]", *lines[-OUTPUT_LINES:]]
    result = "\n".join(lines)
    if not result:
        return f"failed with exit status {status.group(1)} and said nothing" if status else "failed and said nothing"
    return result + _advice(result)


def _broken_off(reason: str, said: str, host: str, step: str) -> str:
    """Return the error for a command that did not end by itself, with the last thing that it told."""
    if LOST.search(reason):
        text = (
            f"the connection to {host} was lost during {step}; the step may still run there, "
            "and the next 'keadb up' waits for it"
        )
    else:
        text = reason
    last = [line for line in said.splitlines() if line.strip()][-1:]
    return f"{text}; the last it told: {CONTROL.sub(' ', last[0]).strip()}" if last else text


def _shortened(text: str) -> str:
    """Return an error whole as far as anybody can read it: its beginning, its end, and how much is left out."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if len(lines) <= ERROR_LINES:
        return "\n".join(lines)
    half = ERROR_LINES // 2
    return "\n".join([*lines[:half], f"[... {len(lines) - 2 * half} lines left out]", *lines[-half:]])


def _advice(said: str) -> str:
    """Return what to do about errors of programs that know nothing of keadb; empty for most."""
    if SUDO_RULE.search(said):
        return "\nThe deploy user may not run the applier there: its rule for sudo is gone, see docs/real-site.md"
    if NOT_THERE.search(said):
        return "\nThe applier or its interpreter (python3) is gone or broken there: mend python3, then run it again"
    return ""
