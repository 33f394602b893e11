"""The Store on PostgreSQL: one writer thread with grouped commits, readers beside it.

Imports nothing by itself: statements can be read without the driver, which is an extra.
"""
