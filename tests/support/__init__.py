"""What tests share: a real server process, and clients of it that hide nothing."""
