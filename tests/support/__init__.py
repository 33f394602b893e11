"""What tests share: a real server process, and clients of it that hide nothing."""

import functools
import ssl

# Every client of httpx reads the machine's certificates, 30 ms of a processor in which no other client of the test is
# heard; none of them meets TLS. They share what one has read.
ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]
