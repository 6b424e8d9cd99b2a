"""Command ``drill-report``: words only; the work is in ``ops.drill_report``."""
# ruff: noqa: PLC0415 -- as in ops.cli: what a command needs is loaded when it runs

from __future__ import annotations

from pathlib import Path

import click

from ops.exits import CommandError, Exit


@click.command("drill-report")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--markdown", is_flag=True, help="Print the table as Markdown, and write nothing.")
@click.option(
    "--pictures", is_flag=True, help="Write each run's picture as a file of its own too, in FOLDER/pictures."
)
def drill_report(*, folder: Path, markdown: bool, pictures: bool) -> int:
    """Make the report of a drill again from the records in its FOLDER, finished or not; needs no lab."""
    from rich.console import Console

    from ops import drill_report as module
    from ops import drill_table
    from ops.drill_record import CAMPAIGN_FILE, RUNS_FILE, RecordError, campaign_of

    try:
        records = module.read(folder)
        asked = folder / CAMPAIGN_FILE
        faults = campaign_of(asked.read_text(encoding="utf-8"), source=str(asked)).faults if asked.exists() else ()
        if markdown:
            click.echo(drill_table.markdown(drill_table.rows(records, faults=faults)), nl=False)
            return Exit.OK
        drill_table.show(records, Console(highlight=False), faults=faults)
        if pictures:
            module.write_pictures(folder / "pictures", records)
        click.echo(f"\n{module.write(folder, records)}")
    except RecordError as error:
        raise CommandError(str(error)) from error
    except FileNotFoundError as error:
        msg = f"{folder}: there is no {RUNS_FILE}: no drill has finished a run there"
        raise CommandError(msg) from error
    except OSError as error:
        msg = f"{error.filename}: {error.strerror}"
        raise CommandError(msg) from error
    return Exit.OK
