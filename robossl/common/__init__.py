"""Tools for every room: configurations, atomic files, progress, plugins, checks of arguments, ranks."""
