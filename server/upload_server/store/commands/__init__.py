"""What a store decides when it writes, in values: no SQL, no JSON, no database. A dialect brings the statements."""
