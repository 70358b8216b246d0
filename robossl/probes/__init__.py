"""`robossl probe`: measure which changes of a picture an encoder ignores, and judge whether that suits a task."""
