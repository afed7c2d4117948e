import signal, sys, threading
from contextlib import contextmanager

from fastprogress.fastprogress import IN_NOTEBOOK, master_bar, progress_bar

class Progress:
    "One bar an epoch where somebody watches (notebook or terminal); one plain line an epoch elsewhere."
    columns = {"epoch": "d", "train_loss": ".3f", "val_loss": ".3f", "val_accuracy": ".1%", "images_per_second": ".0f", "seconds": ".1f"}

    def __init__(self, start: int, epochs: int, quiet: bool = False):
        self.bars = not quiet and (IN_NOTEBOOK or sys.stdout.isatty())
        self.quiet, self.bar = quiet, None
        self.master = master_bar(range(start, epochs)) if self.bars else range(start, epochs)

    def epochs(self):
        "The epochs left, under the outer bar."
        self.line([name.replace("_", " ") for name in self.columns])
        yield from self.master

    def batches(self, generator, total: int):
        "The batches of one epoch, under the inner bar."
        self.bar = progress_bar(generator, total=total, parent=self.master) if self.bars else generator
        return self.bar

    def comment(self, text: str):
        "Show a few words behind the bar."
        if self.bars:
            self.bar.comment = text

    def line(self, cells: list[str]):
        "One row of the table."
        if self.bars:
            self.master.write(cells, table=True)
        elif not self.quiet:
            print("  ".join(f"{c:>{max(8, len(name))}}" for c, name in zip(cells, self.columns)), flush=True)

    def row(self, row: dict, history: list[dict]):
        "One epoch's numbers, and in a notebook the live curve."
        self.line([format(row[name], spec) for name, spec in self.columns.items()])
        if self.bars and len(history) > 1:
            epochs = [r["epoch"] for r in history]
            self.master.update_graph([(epochs, [r[k] for r in history]) for k in ("train_loss", "val_loss")])

@contextmanager
def interrupts():
    "While open, the first Ctrl-C is only noted, in the event this yields; a second one interrupts at once."
    asked = threading.Event()
    def note(number, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
    if threading.current_thread() is not threading.main_thread():   # only the main thread may handle signals
        yield asked
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
