"""The Forebay service: front end, batch former, pipeline, models, results and observation."""
