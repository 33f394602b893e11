"""Who calls: what callers prove their name by, and what the roles of that name may.

Everybody else sees a ``Caller`` only.
"""
