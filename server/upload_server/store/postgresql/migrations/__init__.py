"""Numbered steps of the schema on PostgreSQL, each applied once by `upload-server migrate` and never edited.

A step must not import the application's own modules: it stays what it was when it was released. Each is one
transaction.
"""
