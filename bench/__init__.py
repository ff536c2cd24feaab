"""Performance is measured here, and asserted nowhere."""
