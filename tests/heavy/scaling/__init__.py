"""Several servers behind a real Envoy, and without a proxy; in .venv-scaling."""
