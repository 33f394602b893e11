"""The machinery that proves the promises: a model, recorded histories with checkers, and servers with a named bug."""
