"""Decides who hears of which change, and in which order: watchers are cursors over change numbers.

Must not know any transport. A watcher is either *behind* (it reads pages of the store from its cursor on; a fresh
stream starts behind, at 0) or *live* (it is handed the changes that the hub's tail read, merged to the newest per
target). One that is handed more than it takes falls behind again: so live, slow and resumed watchers are one case.
"""

from upload_server.watch.events import Bookmarked, Changed, Progressed, WatchEvent, WatchRequest
from upload_server.watch.hub import WatchHub, WatchObserver

__all__ = ["Bookmarked", "Changed", "Progressed", "WatchEvent", "WatchHub", "WatchObserver", "WatchRequest"]
