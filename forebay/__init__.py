"""Forebay: the client library. `import forebay` never imports the service or an engine."""
