"""MLPerf's LoadGen as an oracle for loadtest.quantiles on the same samples."""
