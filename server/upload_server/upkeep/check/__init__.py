"""The operator's check of an installation: rows against audit, batches against files, bytes against rows.

Must not know which database or disk it is; reads both, changes nothing unless told to mend.
"""
