"""Telling how far a long run is."""
import datetime
import time
from typing import Any, Optional


class Progress:
    """A bar in a terminal, otherwise a line now and then.

    It has no thread of its own, so that processes may be started meanwhile.

    Args:
        total (int): Number of things to do.
        what (str): Their name, in the plural. Defaults to ``'clips'``.
        show (bool): Whether to show anything. Defaults to True.
    """

    def __init__(self,
                 total: int,
                 what: str = 'clips',
                 show: bool = True) -> None:
        self.total = total
        self.what = what
        self.done = 0
        self.note = ''
        self.start = self.said = time.monotonic()
        self.bar: Optional[Any] = None
        self.show = show and total > 0

    def __enter__(self) -> 'Progress':
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
        )
        from rich.progress import Progress as Bar
        console = Console()
        if self.show and console.is_terminal:
            self.bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn('{task.description}'),
                console=console,
                auto_refresh=False)
            self.bar.start()
            self.task = self.bar.add_task('', total=self.total)
        return self

    def __exit__(self, *args: Any) -> None:
        if self.bar is not None:
            self._refresh()
            self.bar.stop()

    def text(self) -> str:
        """Rate, time left and the note."""
        seconds = max(time.monotonic() - self.start, 1e-6)
        text = f'{self.done / seconds:.1f} {self.what}/s'
        if self.done:
            left = seconds / self.done * (self.total - self.done)
            text += f', {datetime.timedelta(seconds=round(left))} left'
        return f'{text}, {self.note}' if self.note else text

    def update(self, done: int = 0, note: str = '') -> None:
        """Count what is finished and show it from time to time.

        Args:
            done (int): Number of things finished since the last call.
                Defaults to 0.
            note (str): What else to show. Defaults to ``''``.
        """
        self.done += done
        self.note = note
        now = time.monotonic()
        if self.bar is not None and now > self.said + 0.2:
            self._refresh()
            self.said = now
        elif self.bar is None and self.show and now > self.said + 15:
            print(f'{self.done} of {self.total}, {self.text()}', flush=True)
            self.said = now

    def _refresh(self) -> None:
        self.bar.update(
            self.task, completed=self.done, description=self.text())
        self.bar.refresh()
