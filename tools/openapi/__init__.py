"""Makes the OpenAPI document of the HTTP port from the protos; ``make openapi`` runs it. Developers only."""
