"""Where the bytes of files lie: the protocol of a sink, and each sink."""
