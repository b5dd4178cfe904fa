"""The bundled model repository (data only)."""
