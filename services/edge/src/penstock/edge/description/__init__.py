"""The description of the edge's paths, OpenAPI 3.1, which it serves at `/openapi.json`. Pure."""
