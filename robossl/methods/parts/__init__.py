"""Parts of methods: heads, losses, teachers, queues, view pairs, temporal windows."""
