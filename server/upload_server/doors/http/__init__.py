"""Everything on the HTTP port but the transcoder: dispatch, guard, health, metrics, pages, and the WebSocket door."""
