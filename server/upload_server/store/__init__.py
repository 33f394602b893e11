"""Where rows lie: the protocol, the databases that meet it, and the only SQL of the service."""
