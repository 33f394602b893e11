"""Where bytes lie: the protocol, and the places that meet it."""
