"""Decides which watcher hears of which change, and in which order: watchers are cursors over change numbers.

Must not know any transport. A watcher is either *behind* (its stream reads pages of the store from its cursor on; a
fresh stream starts behind, at 0) or *live* (its stream takes the changes that the hub read, merged to the newest per
target: from one history that watchers of ``all`` who see the same rows share, or from what is kept for the ids it
named). A watcher that
lags by more than is kept falls behind again: so live, slow and resumed watchers are one case. A few streams go on in
each turn of the event loop (``turns``), so that calls are answered in between however many watch.
"""

from upload_server.watch.events import Bookmarked, Changed, Outlet, Progressed, WatchEvent, WatchRequest
from upload_server.watch.hub import WatchHub

__all__ = ["Bookmarked", "Changed", "Outlet", "Progressed", "WatchEvent", "WatchHub", "WatchRequest"]
