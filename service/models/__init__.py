"""Model repository, configuration, versions and their life cycle."""
