"""The screen of ``kinkvpn top``: asks once in an interval, shows what came, and outlives the daemon."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App, ScreenStackError
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, RichLog, Sparkline, Static

from kinkvpn import view
from kinkvpn.errors import KinkvpnError
from kinkvpn.terminal import STYLES, printable
from kinkvpn.top import rows
from kinkvpn.top.history import History

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.notifications import SeverityLevel
    from textual.screen import Screen

    from kinkvpn.top.look import Look, Observer
    from kinkvpn.top.rows import Tunnel

# Ours. From so many columns on there is room for all panes side by side; below, one is shown at a time.
WIDE_COLUMNS = 120
# Ours. Lines of events that can be scrolled back to.
EVENT_LINES = 500
# Ours. What a tunnel's row needs of 80 columns besides its sparkline, and what that has then.
CELLS_COLUMNS, SPARK_COLUMNS = 64, 16
# Ours. Columns of the pane with events, at least: lines are folded to what it has.
NARROWEST = 20
PANES = ("sas", "drops", "events")


class Confirm(ModalScreen[bool]):
    """A question before something is done.

    Args:
        question: that can be answered by yes or no.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question, and which keys answer it."""
        with Vertical(id="confirm"):
            yield Label(self._question, markup=False)
            yield Label("y yes   n no")

    def action_answer(self, yes: bool) -> None:
        """Back to whoever asked."""
        self.dismiss(yes)


class Top(App[None]):
    """The application.

    Args:
        observer: looks at the daemon, and has it rekey.
        interval: seconds between two looks.
    """

    TITLE = "kinkvpn top"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 # the App's own declaration
        (0, "-narrow"),
        (WIDE_COLUMNS, "-wide"),
    ]
    CSS = """
    #headline { height: 1; background: $primary; color: $text; text-style: bold; }
    #headline { text-wrap: nowrap; text-overflow: ellipsis; }
    #trouble { height: auto; background: $error; color: $text; text-style: bold; display: none; }
    .gone #trouble { display: block; }
    .gone #tunnels, .gone #panes, .gone #rates { opacity: 50%; }
    #rates { height: 3; }
    #rates Vertical { width: 1fr; padding: 0 1; }
    #rates Sparkline { height: 2; }
    #tunnels { height: 1fr; min-height: 4; }
    #panes { height: 1fr; border-top: solid $primary; }
    #panes > * { width: 1fr; height: 1fr; display: none; }
    #panes > .shown { display: block; }
    .-wide #panes { layout: horizontal; }
    .-wide #panes > * { display: block; }
    .-wide #sas { width: 72; }
    .-wide #drops { width: 1fr; }
    .-wide #events { width: 1fr; }
    #filter { display: none; height: 3; }
    #filter.shown { display: block; }
    Confirm { align: center middle; }
    #confirm { width: 76; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; }
    #confirm { border: thick $primary; background: $surface; }
    #confirm Label { width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "unfilter", "all", show=False),
        Binding("k", "rekey", "rekey"),
        Binding("1", "pane('sas')", "SAs"),
        Binding("2", "pane('drops')", "drops"),
        Binding("3", "pane('events')", "events"),
    ]

    def __init__(self, observer: Observer, interval: float = 1.0) -> None:
        super().__init__()
        self._observer = observer
        self._interval = interval
        self._history = History()
        self._look: Look | None = None
        self._tunnels: list[Tunnel] = []
        self._sort = rows.SORTS[0]
        self._matching = ""

    def compose(self) -> ComposeResult:
        """Headline, rates, tunnels, and what is below them."""
        yield Static("asking the daemon", id="headline", markup=False)
        yield Static("", id="trouble", markup=False)
        with Horizontal(id="rates"):
            for way in ("in", "out"):
                with Vertical():
                    yield Static(way, id=f"rate-{way}", markup=False)
                    yield Sparkline([], id=f"line-{way}")
        yield DataTable(id="tunnels", cursor_type="row")
        with Container(id="panes"):
            yield DataTable(id="sas", cursor_type="none", classes="shown")
            yield DataTable(id="drops", cursor_type="none")
            yield RichLog(id="events", max_lines=EVENT_LINES, wrap=True, markup=False, min_width=NARROWEST)
        yield Input(placeholder="name, peer or state", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Columns, and the first look."""
        for name, columns in (("tunnels", rows.TUNNELS), ("sas", rows.SAS), ("drops", rows.DROPS)):
            table = self._table(name)
            for column in columns:
                table.add_column(column, key=column)
        self._table("tunnels").focus()
        self.run_worker(self._watch())

    def _table(self, name: str) -> DataTable[Any]:
        return self.query_one(f"#{name}", DataTable)

    # ------------------------------------------------------------ looking

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Ask once, and show what came of it."""
        try:
            look = await asyncio.to_thread(self._observer.look)
        except KinkvpnError as error:
            shown = partial(self._lost, str(error))
        else:
            shown = partial(self._found, look)
        with suppress(NoMatches, ScreenStackError):  # at the end of it all: the screen has gone while we waited
            shown()

    def _found(self, look: Look) -> None:
        self._look = look
        self._main.remove_class("gone")
        self._history.add(time.monotonic(), rows.counters_of(look))
        self._show(look)
        self._tell(look)

    def _lost(self, reason: str) -> None:
        """What was seen last stays on the screen, faint."""
        self._history.pause()
        self._main.add_class("gone")
        self._main.query_one("#trouble", Static).update(f"not running, trying again: {printable(reason)}")

    @property
    def _main(self) -> Screen[Any]:
        """The screen below any question. Raises ScreenStackError at the end of it all."""
        for screen in self.screen_stack:
            return screen
        raise ScreenStackError("the screen has gone")

    def _show(self, look: Look) -> None:
        status = look.status
        up = sum(policy["state"] == "established" for policy in rows.policies_of(look))
        count = sum(1 for _ in rows.policies_of(look))
        since = f"pid {status['pid']}, up {view.duration(status['uptime'])}"
        self._text("headline", f"kinkvpn {status['version']}  {up}/{count} tunnels up  {since}  {status['principal']}")
        for way in ("in", "out"):
            name = f"octets {way}"
            self._text(f"rate-{way}", f"{way} {view.bits(self._history.rate(name) * 8)}")
            # One value alone would be drawn as high as it goes, whatever it is.
            rates = self._history.rates(name)
            self._main.query_one(f"#line-{way}", Sparkline).data = rates if len(rates) > 1 else []
        self._show_tunnels(look)
        self._fill("sas", rows.sas(look))
        self._fill("drops", rows.drops(look, self._history))

    def _text(self, name: str, text: str) -> None:
        self._main.query_one(f"#{name}", Static).update(printable(text))

    def _show_tunnels(self, look: Look) -> None:
        spark = max(SPARK_COLUMNS, self.size.width - CELLS_COLUMNS)
        self._tunnels = rows.tunnels(look, self._history, matching=self._matching, sort=self._sort, spark=spark)
        cells = [(row.cells[0], Text(row.cells[1], STYLES.get(row.state, "")), *row.cells[2:]) for row in self._tunnels]
        self._fill("tunnels", cells)
        sort = "" if self._sort == rows.SORTS[0] else f"by {self._sort}"
        match = f"only {self._matching!r}" if self._matching else ""
        none = "" if any(rows.policies_of(look)) else "no tunnels"
        # As Text, for what is typed is no markup: "[/" would be the end of something that has no beginning.
        self._main.query_one("#panes").border_title = Content(", ".join(filter(None, (none, sort, match))))

    def _fill(self, name: str, cells: list[tuple[Any, ...]]) -> None:
        """New rows, with the cursor and the scrolling where they were."""
        table: DataTable[Any] = self._main.query_one(f"#{name}", DataTable)
        at, scrolled = table.cursor_row, table.scroll_y
        table.clear()
        table.add_rows(tuple(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row) for row in cells)
        if table.row_count:
            table.move_cursor(row=min(at, table.row_count - 1), animate=False, scroll=False)
        table.scroll_y = scrolled

    def _tell(self, look: Look) -> None:
        log = self._main.query_one("#events", RichLog)
        for event in look.events:
            warned = event.data.get("level") in ("warning", "error", "critical")
            log.write(Text(rows.told(event), "yellow" if warned else ""))

    # ------------------------------------------------------------ keys

    def action_sort(self) -> None:
        """By the next of what there is to sort by."""
        self._sort = rows.SORTS[(rows.SORTS.index(self._sort) + 1) % len(rows.SORTS)]
        self._again()

    def _again(self) -> None:
        if self._look is not None:
            self._show_tunnels(self._look)

    def action_pane(self, name: str) -> None:
        """Show that pane, where there is no room for all."""
        for pane in PANES:
            self.query_one(f"#{pane}").set_class(pane == name, "shown")

    def action_filter(self) -> None:
        """Ask for a word that rows must have."""
        entry = self.query_one("#filter", Input)
        entry.add_class("shown")
        entry.focus()

    def action_unfilter(self) -> None:
        """All rows again."""
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def on_input_changed(self, changed: Input.Changed) -> None:
        """At each letter."""
        self._matching = changed.value.strip()
        self._again()

    def on_input_submitted(self) -> None:
        """Back to the table, with what was typed."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("shown")
        self._table("tunnels").focus()

    def action_rekey(self) -> None:
        """New keys with the peer under the cursor, if that is what was meant."""
        at = self._table("tunnels").cursor_row
        if not self._tunnels:
            return
        peer = self._tunnels[min(at, len(self._tunnels) - 1)].peer

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._rekey(peer))

        self.push_screen(Confirm(f"New keys for every tunnel with {printable(peer)} now?"), answered)

    async def _rekey(self, peer: str) -> None:
        severity: SeverityLevel = "information"
        try:
            said = await asyncio.to_thread(self._observer.rekey, peer)
        except KinkvpnError as error:
            said, severity = str(error), "error"
        self.notify(printable(said), severity=severity, markup=False)
        await self.look()
