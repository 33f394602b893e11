"""Bytes in folders of this machine, or of one that several share."""
