"""Parts of `robossl collect`: settings, environments, episodes on disk, worker processes and progress."""
