"""What a store does, in values: every decision of a write, and none of a database. A dialect gives the statements."""

# The two import each other until the next step, and in this order it works.
import upload_server.store.sqlite  # noqa: F401
