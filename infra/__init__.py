"""Where machines come from. Everything above this package sees only ``infra.machine.Machine``."""
