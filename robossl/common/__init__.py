"""Tools for all other packages: configurations, atomic files, progress, plugins, checks of arguments, ranks."""
