"""Loss terms, one equation a file: pure functions without weights, warm-ups or counters."""
