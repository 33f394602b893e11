"""The gRPC door: servicer, conversions, errors, caller. Only this package knows the messages of upload.v1."""
