"""MLPerf's LoadGen as an oracle for what loadtest.quantiles says about the same samples."""
