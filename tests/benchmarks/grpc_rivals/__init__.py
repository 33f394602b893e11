"""What the gRPC benchmarks compare with: the least that grpcio can do."""
