"""Faults put to real servers: crashes, failing disks, broken networks, hostile peers, and what leaks under a soak."""
