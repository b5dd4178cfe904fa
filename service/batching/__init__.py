"""Which frames run next, and when: pending queue, cost model, pure policy, and the former's thread."""
