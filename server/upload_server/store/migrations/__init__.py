"""Numbered steps of the schema, run in order by ``playhouse.migrations``; each is applied once and never edited.

A step must not import the application's own modules: it stays what it was when it was released.
"""
