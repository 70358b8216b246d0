"""Which invariances an encoder has, what they cost a task, and a verdict: `robossl probe`."""
