"""A progress bar for commands that run many samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def task_progress(
    console: Console, name: str, total: int
) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """A bar of `total` steps. Gives two functions: one step done; a note of what happens now."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=total)

        def advance() -> None:
            progress.update(task, advance=1, description=name)

        def note(text: str) -> None:
            progress.update(task, description=text)

        yield advance, note
