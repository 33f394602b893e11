"""The audit trail as a chain: each event carries the hash of the one before it, so that tampering shows.

Must not know which database keeps it, nor who asks.
"""
